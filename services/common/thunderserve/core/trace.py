"""Traces: requests one by one, with the moment each arrives."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from thunderserve.core.draws import Draws
from thunderserve.core.errors import InvalidArgumentError
from thunderserve.core.hardware import check_positive

if TYPE_CHECKING:
    from collections.abc import Iterator

    from thunderserve.core.workload import Arrivals, Level, Workload

__all__ = ["Trace", "TracedRequest", "sample_trace"]


@dataclass(frozen=True, slots=True)
class TracedRequest:
    """When a request came, and how long it was."""

    arrival_s: float
    prompt_tokens: int
    output_tokens: int

    def __post_init__(self) -> None:
        if not (math.isfinite(self.arrival_s) and self.arrival_s >= 0):
            raise InvalidArgumentError(f"arrival_s is {self.arrival_s}; it must be >= 0")
        for name in ("prompt_tokens", "output_tokens"):
            if getattr(self, name) < 1:
                raise InvalidArgumentError(f"{name} is {getattr(self, name)}; it must be >= 1")


@dataclass(frozen=True, slots=True)
class Trace:
    """Requests in the order in which they arrive; at least two, so that there is a rate."""

    name: str
    requests: tuple[TracedRequest, ...]

    def __post_init__(self) -> None:
        if len(self.requests) < 2:  # noqa: PLR2004 - a rate needs two
            raise InvalidArgumentError(
                f"trace {self.name} has {len(self.requests)} requests; it needs at least 2",
                param="trace",
            )
        arrivals = [request.arrival_s for request in self.requests]
        if arrivals != sorted(arrivals):
            raise InvalidArgumentError(f"trace {self.name} is not in order of arrival")
        if self.duration_s <= 0:
            raise InvalidArgumentError(f"all requests of trace {self.name} come at once")

    @property
    def duration_s(self) -> float:
        """From the first arrival to the last."""
        return self.requests[-1].arrival_s - self.requests[0].arrival_s

    @property
    def rate_rps(self) -> float:
        """Mean rate between the first arrival and the last."""
        return (len(self.requests) - 1) / self.duration_s

    def with_rate(self, rate_rps: float) -> Trace:
        """The same requests and bursts, sooner or later after each other."""
        check_positive(f"trace {self.name}", rate_rps=rate_rps)
        scale, first = self.rate_rps / rate_rps, self.requests[0].arrival_s
        return Trace(
            self.name,
            tuple(replace(r, arrival_s=(r.arrival_s - first) * scale) for r in self.requests),
        )


def sample_trace(workload: Workload, *, requests: int, seed: int = 0) -> Trace:
    """A trace of a workload; the same seed gives the same trace.

    Lengths do not depend on the rate, nor do a Poisson workload's arrivals in units of its mean
    interval: traces at several rates differ in nothing else.
    """
    lengths = Draws(seed)
    arrivals = _arrivals_s(workload.arrivals, workload.rate_rps, Draws(seed + 1))
    drawn = ((next(arrivals), *lengths.pick(workload.requests)) for _ in range(requests))
    return Trace(
        workload.name,
        tuple(
            TracedRequest(arrival_s, max(1, round(prompt)), max(1, round(output)))
            for arrival_s, prompt, output in drawn
        ),
    )


def _arrivals_s(arrivals: Arrivals, rate_rps: float, draws: Draws) -> Iterator[float]:
    """Moments of a Poisson process whose rate changes between levels."""
    now_s = 0.0
    while True:
        level = _next_level(arrivals, draws)
        until_s = now_s + draws.exponential(level.dwell_s)
        while (now_s := now_s + _gap_s(rate_rps * level.rate_factor, draws)) < until_s:
            yield now_s
        now_s = until_s  # what is left of a gap is drawn anew: exponentials have no memory


def _gap_s(rate_rps: float, draws: Draws) -> float:
    return draws.exponential(1 / rate_rps) if rate_rps > 0 else math.inf


def _next_level(arrivals: Arrivals, draws: Draws) -> Level:
    if len(arrivals.levels) == 1:
        return arrivals.levels[0]
    point = draws.uniform()
    for level, entry in zip(arrivals.levels, arrivals.entry_ratios, strict=True):
        point -= entry
        if point <= 0:
            return level
    return arrivals.levels[-1]
