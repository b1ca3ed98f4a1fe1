"""Has the workload changed for good?

Lengths have shifted when each of two halves of the newest requests differs from what was planned
for: by more than chance, and by enough to matter. The rate has shifted when most parts of the
window are off, and their sum by more than such arrivals vary. One burst is no shift, since no part
of the window counts for more than the others; nor is an outage, which fails requests; nor are the
first few requests. What counts is when requests arrived: those that end first are the short ones.
"""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass, replace
from statistics import median
from typing import TYPE_CHECKING

from thunderserve.control.monitor.samples import differ
from thunderserve.core.burstiness import expected_burstiness
from thunderserve.core.errors import InvalidArgumentError
from thunderserve.core.trace_workload import thin_pairs
from thunderserve.core.workload import POISSON, Workload

if TYPE_CHECKING:
    from collections.abc import Sequence

    from thunderserve.control.monitor.window import Observation, View

__all__ = ["Sensitivity", "Shift", "detect_shift"]

_RATE_PARTS = 6
_LENGTH_PARTS = 12
_PAIRS = 64
_STANDARD_ERRORS = 4.0
_ENDED_RATIO = 0.9


@dataclass(frozen=True, slots=True)
class Sensitivity:
    """What counts as a shift.

    Attributes:
        least_requests: Below so many nothing is said; each half has at least half of them.
        length_ratio: Mean lengths further apart than this, either way, matter; > 1.
        rate_ratio: The same of rates.
        chance: How often one half may differ so much by chance.
        failed_ratio: With more failures than this the fleet is in trouble, not the workload.
    """

    least_requests: int = 50
    length_ratio: float = 1.25
    rate_ratio: float = 1.4
    chance: float = 1e-3
    failed_ratio: float = 0.1

    def __post_init__(self) -> None:
        if self.least_requests < 2:  # noqa: PLR2004 - one for each half
            raise InvalidArgumentError(
                f"least_requests is {self.least_requests}; it must be at least 2",
                param="least_requests",
            )
        for name in ("length_ratio", "rate_ratio"):
            if not getattr(self, name) > 1:
                raise InvalidArgumentError(f"{name} is {getattr(self, name)}; it must be > 1")
        for name in ("chance", "failed_ratio"):
            if not 0 < getattr(self, name) < 1:
                raise InvalidArgumentError(f"{name} is {getattr(self, name)}; it must be in (0, 1)")


@dataclass(frozen=True, slots=True)
class Shift:
    """A workload that is not the planned one.

    Attributes:
        workload: What arrives now.
        reason: What has changed, for people.
    """

    workload: Workload
    reason: str


def detect_shift(planned: Workload, view: View, sensitivity: Sensitivity) -> Shift | None:
    """What arrives now, when that is not what was planned for.

    Args:
        planned: What the current routes were made for.
        view: The newest requests.
        sensitivity: What counts.

    Returns:
        None while nothing has changed, or while there is too little to tell.
    """
    if view.failed_ratio > sensitivity.failed_ratio:
        return None
    view = view.ripe(_ENDED_RATIO)
    served = view.served
    if len(served) < sensitivity.least_requests or view.span_s <= 0:
        return None
    even = _evened(served, view)
    newest = even[-max(sensitivity.least_requests, len(even) // 2) :]
    reasons = _length_reasons(planned, newest, sensitivity)
    # Of other requests than the planned ones, the planned bursts say nothing.
    expected = replace(planned, arrivals=POISSON) if reasons else planned
    rate_rps = len(served) / view.span_s
    if _rate_differs(expected, view, sensitivity):
        reasons.append(f"{rate_rps:.2f} requests/s, not {planned.rate_rps:.2f}")
    if not reasons:
        return None
    pairs = [(float(e.request.prompt_tokens), float(e.request.output_tokens)) for e in newest]
    workload = Workload("observed", rate_rps, thin_pairs(pairs, _PAIRS), expected.arrivals)
    return Shift(workload, ", ".join(reasons))


def _evened(served: Sequence[Observation], view: View) -> list[Observation]:
    """No more from any part of the window than from the median one, its newest: no burst rules."""
    parts: dict[int, list[Observation]] = defaultdict(list)
    for each in served:
        parts[_part(each, view, _LENGTH_PARTS)].append(each)
    most = math.ceil(median(len(part) for part in parts.values()))
    return [each for index in sorted(parts) for each in parts[index][-most:]]


def _part(each: Observation, view: View, parts: int) -> int:
    """In which of equally long parts of the view it arrived."""
    return min(parts - 1, int((each.arrived_s - view.start_s) / view.span_s * parts))


def _length_reasons(
    planned: Workload, newest: Sequence[Observation], sensitivity: Sensitivity
) -> list[str]:
    """What has changed of prompts and of answers, for people."""
    middle = len(newest) // 2
    kinds = (
        ("prompts", [e.request.prompt_tokens for e in newest], [p for p, _ in planned.requests]),
        ("answers", [e.request.output_tokens for e in newest], [o for _, o in planned.requests]),
    )
    return [
        f"{name} of {_mean(lengths):.0f} tokens, not {_mean(before):.0f}"
        for name, lengths, before in kinds
        if all(
            _lengths_differ(half, before, sensitivity)
            for half in (lengths[:middle], lengths[middle:])
        )
        and _apart(_mean(lengths) / _mean(before), sensitivity.length_ratio)
    ]


def _lengths_differ(
    half: Sequence[float], planned: Sequence[float], sensitivity: Sensitivity
) -> bool:
    # One value stands for a workload of which the means alone are known: it has no distribution.
    return len(planned) == 1 or differ(half, planned, sensitivity.chance)


def _rate_differs(expected: Workload, view: View, sensitivity: Sensitivity) -> bool:
    """True when most parts of the window are off, and their sum by more than chance."""
    counts = [0] * _RATE_PARTS
    for each in view.served:
        counts[_part(each, view, _RATE_PARTS)] += 1
    usual = expected.rate_rps * view.span_s
    (dispersion,) = expected_burstiness(
        expected.arrivals, expected.rate_rps, (view.span_s,)
    ).dispersion
    surprising = abs(sum(counts) - usual) > _STANDARD_ERRORS * math.sqrt(dispersion * usual)
    return surprising and _apart(median(counts) / (usual / _RATE_PARTS), sensitivity.rate_ratio)


def _apart(ratio: float, least: float) -> bool:
    """True when a ratio is further from 1, either way, than `least` is."""
    return not 1 / least <= ratio <= least


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
