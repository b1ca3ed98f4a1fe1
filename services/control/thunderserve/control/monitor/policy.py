"""Whether a change of phases and routes is worth making now.

Routes alone cost nothing. A flip takes a group out of service for some seconds, and what is gained
must outweigh that. Flips are limited in number, and must gain twice as much where they undo what
was done a short while ago: so the fleet does not swing back and forth.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from thunderserve.core.errors import InvalidArgumentError
from thunderserve.core.plan import Phase

if TYPE_CHECKING:
    from collections.abc import Sequence


__all__ = ["Action", "Decision", "Limits", "Options", "PastFlip", "Rescheduling", "decide"]

_HOUR_S = 3600.0
_UNDOING_GAIN = 2.0


class Action(StrEnum):
    """What to do."""

    HOLD = "hold"
    ROUTES = "routes"
    FLIP = "flip"


class Rescheduling(StrEnum):
    """What the control plane changes by itself when the workload or the fleet has changed.

    Routes between live groups follow losses and returns in any case.
    """

    OFF = "off"
    ROUTES = "routes"
    FLIPS = "flips"


@dataclass(frozen=True, slots=True)
class PastFlip:
    """A flip that was made."""

    at_s: float
    group: str
    to_phase: Phase


@dataclass(frozen=True, slots=True)
class Options:
    """What could be done, and requests per second in time with it, under what arrives now.

    Attributes:
        kept_rps: Nothing changes.
        routed_rps: New routes alone.
        flipped_rps: New phases and routes.
        flips: Groups whose phase changes then, and to which.
        during_rps: While they flip, by those that go on.
        flipping_s: How long that is.
    """

    kept_rps: float
    routed_rps: float
    flipped_rps: float
    flips: tuple[tuple[str, Phase], ...] = ()
    during_rps: float = 0.0
    flipping_s: float = 0.0

    @property
    def cost_requests(self) -> float:
        """Requests in time that the flips cost."""
        return max(0.0, self.routed_rps - self.during_rps) * self.flipping_s


@dataclass(frozen=True, slots=True)
class Limits:
    """How readily the fleet changes.

    Attributes:
        least_gain_ratio: Of requests in time; less is not worth a change.
        horizon_s: For how long a change is counted on to serve.
        cool_down_s: Nothing is changed for so long after a change: what it brought is not seen yet.
        flips_per_hour: At most.
        undo_s: Undoing a flip within so long must gain twice as much.
    """

    least_gain_ratio: float = 0.05
    horizon_s: float = 600.0
    cool_down_s: float = 60.0
    flips_per_hour: int = 12
    undo_s: float = 900.0

    def __post_init__(self) -> None:
        for name in ("least_gain_ratio", "horizon_s", "cool_down_s", "flips_per_hour", "undo_s"):
            if getattr(self, name) < 0:
                raise InvalidArgumentError(f"{name} is {getattr(self, name)}; it must be >= 0")


@dataclass(frozen=True, slots=True)
class Decision:
    """What to do, and why, for people."""

    action: Action
    reason: str


def decide(options: Options, past: Sequence[PastFlip], now_s: float, limits: Limits) -> Decision:
    """What to do now.

    Args:
        options: What could be done.
        past: Flips of the last hour and longer ago.
        now_s: Monotonic.
        limits: How readily.
    """
    why_not = _why_not_flip(options, past, now_s, limits)
    if not why_not:
        gain = _ratio(options.flipped_rps, options.kept_rps)
        lost = f"costs {options.cost_requests:.1f} requests"
        return Decision(Action.FLIP, f"{_names(options)}: {gain:+.0%} in time, {lost}")
    if _ratio(options.routed_rps, options.kept_rps) >= limits.least_gain_ratio:
        gain = _ratio(options.routed_rps, options.kept_rps)
        return Decision(Action.ROUTES, f"new routes: {gain:+.0%} in time; no flip: {why_not}")
    return Decision(Action.HOLD, why_not)


def _why_not_flip(options: Options, past: Sequence[PastFlip], now_s: float, limits: Limits) -> str:
    """Empty when the flips are worth it."""
    if not options.flips:
        return "no flip would help"
    undone = [old for old in past if _undoes(options, old) and now_s - old.at_s < limits.undo_s]
    least = limits.least_gain_ratio * (_UNDOING_GAIN if undone else 1)
    gain = _ratio(options.flipped_rps, options.routed_rps)
    if gain < least:
        return f"{_names(options)} would gain {gain:.1%}, less than {least:.0%}"
    won = (options.flipped_rps - options.routed_rps) * limits.horizon_s
    if won <= options.cost_requests:
        return (
            f"{_names(options)} would win {won:.1f} requests in {limits.horizon_s:.0f} s and cost "
            f"{options.cost_requests:.1f}"
        )
    recent = sum(now_s - old.at_s < _HOUR_S for old in past)
    if recent + len(options.flips) > limits.flips_per_hour:
        return f"{recent} flips within the hour; at most {limits.flips_per_hour} are allowed"
    return ""


def _undoes(options: Options, old: PastFlip) -> bool:
    return any(group == old.group and phase is not old.to_phase for group, phase in options.flips)


def _ratio(after_rps: float, before_rps: float) -> float:
    """What is gained, relative to what there was; without anything before, any gain is whole."""
    if before_rps <= 0:
        return 1.0 if after_rps > 0 else 0.0
    return after_rps / before_rps - 1


def _names(options: Options) -> str:
    return ", ".join(f"{group} to {phase}" for group, phase in options.flips)
