"""Traces keep their requests' order, and samples what they are drawn from."""

from __future__ import annotations

import statistics
from itertools import pairwise

import pytest

from thunderserve.core.errors import InvalidArgumentError
from thunderserve.core.trace import Trace, TracedRequest, sample_trace
from thunderserve.core.workload import POISSON, Arrivals, Level, Workload

WORKLOAD = Workload("two", 4.0, ((100, 10), (300, 30)))
BURSTS = Arrivals((Level(0.0, 0.75, 30.0), Level(4.0, 0.25, 10.0)))


def interval_cv(trace: Trace) -> float:
    """Standard deviation of the intervals between arrivals, in means."""
    gaps = [b.arrival_s - a.arrival_s for a, b in pairwise(trace.requests)]
    return statistics.pstdev(gaps) / statistics.mean(gaps)


def test_sample_trace_has_the_workload_s_rate_and_lengths() -> None:
    trace = sample_trace(WORKLOAD, requests=4000)

    assert trace.rate_rps == pytest.approx(4.0, rel=0.05)
    assert {(r.prompt_tokens, r.output_tokens) for r in trace.requests} == {(100, 10), (300, 30)}
    assert interval_cv(trace) == pytest.approx(1.0, abs=0.05)


def test_sample_trace_is_bursty_when_the_rate_changes() -> None:
    """The mean rate stays; intervals spread far wider than a Poisson process's."""
    bursty = Workload("two", 4.0, WORKLOAD.requests, BURSTS)

    trace = sample_trace(bursty, requests=20_000)

    assert trace.rate_rps == pytest.approx(4.0, rel=0.1)
    assert interval_cv(trace) > 5


def test_sample_trace_differs_in_its_rate_alone_when_the_rate_does() -> None:
    slow, fast = (sample_trace(WORKLOAD.with_rate(rate), requests=50) for rate in (1.0, 2.0))

    for one, other in zip(slow.requests, fast.requests, strict=True):
        assert one.arrival_s == pytest.approx(2 * other.arrival_s)
        assert one.prompt_tokens == other.prompt_tokens


def test_with_rate_scales_arrivals_and_starts_at_zero() -> None:
    trace = Trace("three", tuple(TracedRequest(t, 5, 5) for t in (10.0, 11.0, 14.0)))

    scaled = trace.with_rate(1.0)

    assert [r.arrival_s for r in scaled.requests] == [0.0, 0.5, 2.0]


@pytest.mark.parametrize(
    ("arrivals", "problem"),
    [
        ((), "has 0 requests"),
        ((1.0,), "has 1 requests"),
        ((2.0, 1.0), "not in order"),
        ((1.0, 1.0), "at once"),
    ],
)
def test_trace_refuses_what_has_no_rate(arrivals: tuple[float, ...], problem: str) -> None:
    with pytest.raises(InvalidArgumentError, match=problem):
        Trace("bad", tuple(TracedRequest(t, 1, 1) for t in arrivals))


@pytest.mark.parametrize(
    ("levels", "problem"),
    [
        ((Level(1.0, 0.5, 1.0),), "0.5 of the time"),
        ((Level(2.0, 1.0, 1.0),), "2.0 of the rate"),
        ((Level(1.0, 0.5, float("inf")), Level(1.0, 0.5, 1.0)), "must end"),
    ],
)
def test_arrivals_refuse_levels_that_do_not_add_up(levels: tuple[Level, ...], problem: str) -> None:
    with pytest.raises(InvalidArgumentError, match=problem):
        Arrivals(levels)


def test_poisson_is_one_level() -> None:
    assert [level.rate_factor for level in POISSON.levels] == [1.0]
