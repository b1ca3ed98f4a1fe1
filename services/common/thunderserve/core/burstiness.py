"""How bursty arrivals are: measured on a trace, and expected of a model of it.

The model is a Poisson process whose rate is a Markov chain over levels (a Markov-modulated Poisson
process). The next level is drawn whatever the last one was, so the chain's generator is a diagonal
plus a rank of one, and every moment has a closed form in the Laplace domain.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from thunderserve.core.workload import Arrivals

__all__ = ["Burstiness", "expected_burstiness", "measure_burstiness"]

_STEHFEST_TERMS = 12  # beyond, double precision loses more than the series gains


@dataclass(frozen=True, slots=True)
class Burstiness:
    """What distinguishes arrivals from a Poisson process of the same rate.

    Attributes:
        interval_cv: Standard deviation of the time between two arrivals over its mean; Poisson: 1.
        dispersion: Variance of the number of arrivals in a window over its mean, for each window;
            Poisson: 1.
        silence_ratio: Share of windows without an arrival, for each window.
        skewness: Of the number of arrivals in a window, for each window.
    """

    interval_cv: float
    dispersion: tuple[float, ...]
    silence_ratio: tuple[float, ...]
    skewness: tuple[float, ...]


def measure_burstiness(arrivals_s: Sequence[float], windows_s: Sequence[float]) -> Burstiness:
    """Burstiness of moments in ascending order; windows follow each other from the first."""
    gaps = [after - before for before, after in pairwise(arrivals_s)]
    counts = [_counts(arrivals_s, window_s) for window_s in windows_s]
    moments = [_moments(each) for each in counts]
    mean_s, variance, _ = _moments(gaps)
    return Burstiness(
        interval_cv=math.sqrt(variance) / mean_s,
        dispersion=tuple(variance / mean for mean, variance, _ in moments),
        silence_ratio=tuple(each.count(0) / len(each) for each in counts),
        skewness=tuple(
            third / variance**1.5 if variance else 0.0 for _, variance, third in moments
        ),
    )


def _counts(arrivals_s: Sequence[float], window_s: float) -> list[int]:
    """Arrivals in each whole window."""
    first = arrivals_s[0]
    counts = [0] * max(1, int((arrivals_s[-1] - first) // window_s))
    for arrival_s in arrivals_s:
        window = int((arrival_s - first) // window_s)
        if window < len(counts):
            counts[window] += 1
    return counts


def _moments(values: Sequence[float]) -> tuple[float, float, float]:
    """Mean, variance, third central moment."""
    mean = sum(values) / len(values)
    variance = sum((value - mean) ** 2 for value in values) / len(values)
    return mean, variance, sum((value - mean) ** 3 for value in values) / len(values)


def expected_burstiness(
    arrivals: Arrivals, rate_rps: float, windows_s: Sequence[float]
) -> Burstiness:
    """Burstiness of the arrivals at that rate, over endless time.

    Source: Fischer and Meier-Hellstern, "The Markov-modulated Poisson process (MMPP) cookbook"
    (1993), for the moments; Stehfest's algorithm 368 (1970) for what has no closed form in time.
    """
    chain = _Chain(arrivals, rate_rps)
    moments = [chain.count_moments(window_s) for window_s in windows_s]
    return Burstiness(
        interval_cv=chain.interval_cv(),
        dispersion=tuple(
            variance / (rate_rps * window_s)
            for window_s, (variance, _) in zip(windows_s, moments, strict=True)
        ),
        silence_ratio=tuple(chain.silence_ratio(window_s) for window_s in windows_s),
        skewness=tuple(third / variance**1.5 for variance, third in moments),
    )


class _Chain:
    """The Markov chain of the levels, in rates per second."""

    def __init__(self, arrivals: Arrivals, rate_rps: float) -> None:
        levels = arrivals.levels
        self.rate = rate_rps
        self.shares = [level.time_ratio for level in levels]
        self.rates = [level.rate_factor * rate_rps for level in levels]
        self.leaving = [1 / level.dwell_s for level in levels]
        self.entries = arrivals.entry_ratios
        self.excess = [rate - rate_rps for rate in self.rates]

    def interval_cv(self) -> float:
        """E[T^2] = 2 a (L - Q)^-2 1, where a is the level that an arrival sees."""
        ones = [1.0] * len(self.rates)
        twice = self._solve(0.0, self._solve(0.0, ones, self.rates), self.rates)
        seen = [p * rate / self.rate for p, rate in zip(self.shares, self.rates, strict=True)]
        return math.sqrt(max(0.0, 2 * _dot(seen, twice) * self.rate**2 - 1))

    def count_moments(self, window_s: float) -> tuple[float, float]:
        """Variance and third central moment of the arrivals in a window."""
        weighted = [p * e for p, e in zip(self.shares, self.excess, strict=True)]

        def second(s: float) -> float:
            return 2 / s**2 * _dot(weighted, self._solve(s, self.excess))

        def third(s: float) -> float:
            once = self._solve(s, self.excess)
            again = [e * value for e, value in zip(self.excess, once, strict=True)]
            return 6 / s**2 * _dot(weighted, self._solve(s, again))

        mean, spread = self.rate * window_s, _invert(second, window_s)
        return mean + spread, mean + 3 * spread + _invert(third, window_s)

    def silence_ratio(self, window_s: float) -> float:
        """Over the levels' shares p: p exp((Q - L) w) 1."""
        ones = [1.0] * len(self.rates)
        return _invert(lambda s: _dot(self.shares, self._solve(s, ones, self.rates)), window_s)

    def _solve(
        self, s: float, vector: Sequence[float], losses: Sequence[float] | None = None
    ) -> list[float]:
        """(s + losses - Q)^-1 vector, by Sherman and Morrison's formula."""
        shifts = [s + loss for loss in losses] if losses else [s] * len(vector)
        each = [1 / (shift + out) for shift, out in zip(shifts, self.leaving, strict=True)]
        start = [e * inverse for e, inverse in zip(self.entries, each, strict=True)]
        back = _dot(start, vector) / _dot(start, shifts)
        return [
            inverse * (value + out * back)
            for inverse, value, out in zip(each, vector, self.leaving, strict=True)
        ]


def _dot(left: Sequence[float], right: Sequence[float]) -> float:
    return sum(a * b for a, b in zip(left, right, strict=True))


def _stehfest(terms: int) -> tuple[float, ...]:
    half, f = terms // 2, math.factorial
    return tuple(
        (-1) ** (k + half)
        * sum(
            j**half * f(2 * j) / (f(half - j) * f(j) * f(j - 1) * f(k - j) * f(2 * j - k))
            for j in range((k + 1) // 2, min(k, half) + 1)
        )
        for k in range(1, terms + 1)
    )


_WEIGHTS = _stehfest(_STEHFEST_TERMS)


def _invert(transform: Callable[[float], float], at: float) -> float:
    """A smooth function at a point, from its Laplace transform."""
    step = math.log(2) / at
    return step * sum(
        weight * transform(index * step) for index, weight in enumerate(_WEIGHTS, start=1)
    )
