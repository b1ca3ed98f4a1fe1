"""Which groups can change their phase without loading weights."""

from __future__ import annotations

from typing import TYPE_CHECKING

from thunderserve.core.plan import Phase

if TYPE_CHECKING:
    from collections.abc import Iterable

    from thunderserve.control.planner.problem import EngineLimits
    from thunderserve.core.plan import Group

__all__ = ["can_flip", "discounted", "flippable_ratio", "share_of"]

_INFLEXIBLE = 1e-3


def can_flip(phase: Phase, pp: int, engine: EngineLimits) -> bool:
    """A group that does one half of the work, in few enough stages, can do the other half."""
    return phase is not Phase.COLOCATED and pp <= engine.flip_max_pp


def flippable_ratio(groups: Iterable[Group], engine: EngineLimits) -> float:
    """The share of the groups' GPUs in those that can flip."""
    return share_of((len(group.gpus), can_flip(group.phase, group.pp, engine)) for group in groups)


def share_of(gpus: Iterable[tuple[int, bool]]) -> float:
    """The share of GPUs that can flip; all, when there are none."""
    able = total = 0
    for number, flips in gpus:
        total += number
        able += number * flips
    return able / total if total else 1.0


def discounted(worth: float, gpus: Iterable[tuple[int, bool]], wanted_ratio: float) -> float:
    """What groups are worth that should be able to flip, by share of their GPUs.

    Too few of them make it less than any worth with enough; among those, the more the better.
    """
    if wanted_ratio <= 0 or worth <= 0:
        return worth
    missing = wanted_ratio - share_of(gpus)
    return worth if missing <= 0 else worth * _INFLEXIBLE * (1 - missing / 2)
