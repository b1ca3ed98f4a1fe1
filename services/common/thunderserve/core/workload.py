"""What arrives: how many requests per second, and how long they are."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from itertools import pairwise
from types import MappingProxyType
from typing import TYPE_CHECKING

from thunderserve.core.azure import AZURE
from thunderserve.core.errors import InvalidArgumentError
from thunderserve.core.hardware import check_positive

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = [
    "POISSON",
    "WORKLOADS",
    "Arrivals",
    "Lengths",
    "Level",
    "Workload",
    "workload_preset",
]

_QUANTILES = 40
_TOLERANCE = 1e-6


@dataclass(frozen=True, slots=True)
class Lengths:
    """A distribution of token counts: ascending values, each equally likely."""

    values: tuple[float, ...]

    def __post_init__(self) -> None:
        if not self.values:
            raise InvalidArgumentError("a length distribution without values")
        if not all(math.isfinite(value) and value >= 1 for value in self.values):
            raise InvalidArgumentError(f"lengths must be >= 1 token, found {min(self.values)}")
        if list(self.values) != sorted(self.values):
            raise InvalidArgumentError("lengths must be in ascending order")

    @property
    def mean(self) -> float:
        """Mean length in tokens."""
        return sum(self.values) / len(self.values)

    def percentile(self, percent: float) -> float:
        """The length that `percent` of the requests do not exceed."""
        index = math.ceil(percent / 100 * len(self.values)) - 1
        return self.values[max(0, min(index, len(self.values) - 1))]

    @classmethod
    def constant(cls, tokens: float) -> Lengths:
        """Every request has this length."""
        return cls((float(tokens),))

    @classmethod
    def from_samples(cls, samples: Iterable[float]) -> Lengths:
        """A sample's distribution, thinned to equally likely quantiles when it is large."""
        ordered = sorted(float(sample) for sample in samples)
        if len(ordered) <= _QUANTILES:
            return cls(tuple(ordered))
        edges = [round(i * len(ordered) / _QUANTILES) for i in range(_QUANTILES + 1)]
        parts = [ordered[low:high] for low, high in pairwise(edges)]
        # Sorted again: means of equal samples may differ in their last bit.
        return cls(tuple(sorted(sum(part) / len(part) for part in parts)))


@dataclass(frozen=True, slots=True)
class Level:
    """One of the rates between which arrivals change.

    Attributes:
        rate_factor: Times the workload's mean rate; 0 is silence.
        time_ratio: Share of the time that the rate is this.
        dwell_s: Mean time until the next level is drawn, exponential; it may be this one again.
    """

    rate_factor: float
    time_ratio: float
    dwell_s: float

    def __post_init__(self) -> None:
        if not (math.isfinite(self.rate_factor) and self.rate_factor >= 0):
            raise InvalidArgumentError(f"rate_factor is {self.rate_factor}; it must be >= 0")
        if not 0 < self.time_ratio <= 1:
            raise InvalidArgumentError(f"time_ratio is {self.time_ratio}; it must be in (0, 1]")
        if not self.dwell_s > 0:
            raise InvalidArgumentError(f"dwell_s is {self.dwell_s}; it must be > 0")


@dataclass(frozen=True, slots=True)
class Arrivals:
    """When requests come: a Poisson process whose rate changes between levels.

    One level is a plain Poisson process. Several make bursts, which a plain one hides: when a
    level's dwell ends, the next one is drawn by `entry_ratios`, whatever the last one was.
    """

    levels: tuple[Level, ...]

    def __post_init__(self) -> None:
        if len(self.levels) > 1 and any(math.isinf(level.dwell_s) for level in self.levels):
            raise InvalidArgumentError("a level among several must end", param="dwell_s")
        shares = math.fsum(level.time_ratio for level in self.levels)
        mean = math.fsum(level.time_ratio * level.rate_factor for level in self.levels)
        if abs(shares - 1) > _TOLERANCE or abs(mean - 1) > _TOLERANCE:
            raise InvalidArgumentError(
                f"the levels cover {shares} of the time and {mean} of the rate; both must be 1",
                param="levels",
            )

    @classmethod
    def relative(cls, levels: Iterable[tuple[float, float, float]]) -> Arrivals:
        """Levels of (rate, share of the time, mean dwell); rates and shares in any unit."""
        levels = tuple(levels)
        whole = math.fsum(share for _, share, _ in levels)
        mean = math.fsum(rate * share for rate, share, _ in levels) / whole
        return cls(
            tuple(Level(rate / mean, share / whole, dwell_s) for rate, share, dwell_s in levels)
        )

    @property
    def entry_ratios(self) -> tuple[float, ...]:
        """How often each level is drawn; this makes their shares of the time come true."""
        if len(self.levels) == 1:
            return (1.0,)
        entries = [level.time_ratio / level.dwell_s for level in self.levels]
        return tuple(entry / sum(entries) for entry in entries)


POISSON = Arrivals((Level(1.0, 1.0, math.inf),))
"""The same rate at all times."""


@dataclass(frozen=True, slots=True)
class Workload:
    """Requests: how many per second, how long, and how bursty.

    Attributes:
        rate_rps: Mean over all time.
        requests: (prompt tokens, answer tokens), each pair equally likely.
        arrivals: How the rate changes.
        prompt: The pairs' prompts alone.
        output: The pairs' answers alone.
    """

    name: str
    rate_rps: float
    requests: tuple[tuple[float, float], ...]
    arrivals: Arrivals = POISSON
    prompt: Lengths = field(init=False, repr=False, compare=False)
    output: Lengths = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        check_positive(f"workload {self.name}", rate_rps=self.rate_rps)
        if not self.requests:
            raise InvalidArgumentError(f"workload {self.name} has no requests", param="requests")
        for name, place in (("prompt", 0), ("output", 1)):
            lengths = Lengths.from_samples(request[place] for request in self.requests)
            object.__setattr__(self, name, lengths)

    def with_rate(self, rate_rps: float) -> Workload:
        """The same requests at another rate."""
        return replace(self, rate_rps=rate_rps)

    @classmethod
    def independent(cls, name: str, rate_rps: float, prompt: Lengths, output: Lengths) -> Workload:
        """Prompts and answers that have nothing to do with each other."""
        pairs = tuple((p, o) for p in prompt.values for o in output.values)
        return cls(name, rate_rps, pairs)

    @classmethod
    def from_means(cls, *, rate_rps: float, prompt_tokens: float, output_tokens: float) -> Workload:
        """A workload of which only the means are known."""
        check_positive("workload", prompt_tokens=prompt_tokens, output_tokens=output_tokens)
        return cls("means", rate_rps, ((max(1.0, prompt_tokens), max(1.0, output_tokens)),))


WORKLOADS: Mapping[str, Workload] = MappingProxyType(
    {
        fit.name: Workload(
            fit.name,
            fit.rate_rps,
            fit.requests,
            Arrivals.relative(fit.levels),
        )
        for fit in AZURE
    }
)
"""Presets by name."""


def workload_preset(name: str) -> Workload:
    """The preset of that name.

    Raises:
        InvalidArgumentError: There is none.
    """
    if name not in WORKLOADS:
        raise InvalidArgumentError(
            f"no workload preset {name!r}; there are {', '.join(WORKLOADS)}", param="workload"
        )
    return WORKLOADS[name]
