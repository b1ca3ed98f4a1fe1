"""Levels of rate that make arrivals as bursty as a recorded trace's."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from thunderserve.core.burstiness import Burstiness, expected_burstiness, measure_burstiness
from thunderserve.core.workload import POISSON, Arrivals

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["WINDOWS_S", "fit_arrivals"]

WINDOWS_S = (1.0, 10.0, 60.0)
"""From what a bound on the first token notices to what a re-schedule notices."""

_MAX_LEVELS = 4
_GOOD_ENOUGH = 0.02  # sum of squares: one figure off by 15%, or all by 5%
_LEAST_REQUESTS = 100
_LEAST_WINDOWS = 20
_SHORTEST_DWELL_S, _LEAST_SHARE, _LEAST_FACTOR = 0.3, 0.003, 1e-3
_FIRST_STEP, _LAST_STEP, _MAX_SWEEPS = 1.0, 0.01, 400


def fit_arrivals(arrivals_s: Sequence[float]) -> Arrivals:
    """The fewest levels, up to four, with the interarrival CV and the counts of a trace.

    Counts in windows of 1, 10 and 60 s: their dispersion, their skewness (how high the peaks are)
    and how many are zero. Windows of which the trace has fewer than 20 are left out; a trace that
    has fewer than 100 requests, or that is no burstier than a Poisson process, gives `POISSON`.

    Args:
        arrivals_s: In ascending order.
    """
    duration_s = arrivals_s[-1] - arrivals_s[0]
    windows_s = [w for w in WINDOWS_S if duration_s >= _LEAST_WINDOWS * w]
    if len(arrivals_s) < _LEAST_REQUESTS or not windows_s:
        return POISSON
    rate_rps = (len(arrivals_s) - 1) / duration_s
    wanted = measure_burstiness(arrivals_s, windows_s)
    if max(wanted.interval_cv, *wanted.dispersion) <= 1:
        return POISSON

    def misfit(arrivals: Arrivals) -> float:
        return _misfit(expected_burstiness(arrivals, rate_rps, windows_s), wanted)

    best, least = POISSON, misfit(POISSON)
    for number in range(2, _MAX_LEVELS + 1):
        if least <= _GOOD_ENOUGH:
            break
        found = _fit_levels(number, misfit, longest_s=duration_s / 8)
        if (value := misfit(found)) < least:
            best, least = found, value
    return best


def _misfit(found: Burstiness, wanted: Burstiness) -> float:
    """Sum of squares; a share of silence and a skewness may be 0, so they are not relative."""
    ratios = [_log_ratio(found.interval_cv, wanted.interval_cv)]
    ratios += map(_log_ratio, found.dispersion, wanted.dispersion)
    silences = zip(found.silence_ratio, wanted.silence_ratio, strict=True)
    skews = zip(found.skewness, wanted.skewness, strict=True)
    return (
        sum(ratio**2 for ratio in ratios)
        + 4 * sum((a - b) ** 2 for a, b in silences)
        + 0.05 * sum((a - b) ** 2 for a, b in skews)
    )


def _log_ratio(found: float, wanted: float) -> float:
    least = 1e-3
    return math.log(max(found, least) / max(wanted, least))


def _fit_levels(number: int, misfit: Callable[[Arrivals], float], *, longest_s: float) -> Arrivals:
    """Levels of the least misfit, by a pattern search from rare, fast and short to usual."""

    def value(point: Sequence[float]) -> float:
        arrivals = _levels(point, number)
        legal = all(
            level.time_ratio >= _LEAST_SHARE
            and level.rate_factor >= _LEAST_FACTOR
            and _SHORTEST_DWELL_S <= level.dwell_s <= longest_s
            for level in arrivals.levels
        )
        return misfit(arrivals) if legal else math.inf

    start = [0.0] * (number - 1)
    start += [-2.0 * (number - 1 - i) for i in range(number - 1)]
    start += [math.log(min(60.0, longest_s)) - 1.5 * i for i in range(number)]
    return _levels(_pattern_search(value, start), number)


def _levels(point: Sequence[float], number: int) -> Arrivals:
    """Logarithms of shares and of rates, each relative to the last level's, then of dwells."""
    shares = [*(math.exp(x) for x in point[: number - 1]), 1.0]
    rates = [*(math.exp(x) for x in point[number - 1 : 2 * number - 2]), 1.0]
    dwells_s = [math.exp(x) for x in point[2 * number - 2 :]]
    return Arrivals.relative(zip(rates, shares, dwells_s, strict=True))


def _pattern_search(value: Callable[[Sequence[float]], float], start: list[float]) -> list[float]:
    """The lowest point that steps along single axes find; the steps halve when none helps.

    Source: Hooke and Jeeves, "Direct search" (1961), without its pattern moves.
    """
    best, least, step = start, value(start), _FIRST_STEP
    for _ in range(_MAX_SWEEPS):
        before = least
        for axis in range(len(start)):
            for move in (step, -step):
                tried = [*best[:axis], best[axis] + move, *best[axis + 1 :]]
                if (found := value(tried)) < least:
                    best, least = tried, found
                    break
        if least == before:
            step /= 2
            if step < _LAST_STEP:
                break
    return best
