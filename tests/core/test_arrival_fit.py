"""Levels are as few as will do, and as bursty as what they were fitted to."""

from __future__ import annotations

import pytest

from thunderserve.core.arrival_fit import WINDOWS_S, fit_arrivals
from thunderserve.core.burstiness import expected_burstiness, measure_burstiness
from thunderserve.core.trace import sample_trace
from thunderserve.core.workload import POISSON, Arrivals, Workload


def sampled(arrivals: Arrivals, requests: int) -> list[float]:
    """Moments of 4 requests per second."""
    workload = Workload("any", 4.0, ((1, 1),), arrivals)
    return [request.arrival_s for request in sample_trace(workload, requests=requests).requests]


def test_fit_arrivals_is_poisson_when_the_trace_is() -> None:
    assert fit_arrivals(sampled(POISSON, 8000)) is POISSON


def test_fit_arrivals_is_as_bursty_as_the_trace() -> None:
    """Two levels suffice for two levels."""
    arrivals_s = sampled(Arrivals.relative([(0.1, 0.7, 30.0), (3.0, 0.3, 15.0)]), 12_000)
    rate_rps = (len(arrivals_s) - 1) / (arrivals_s[-1] - arrivals_s[0])
    wanted = measure_burstiness(arrivals_s, WINDOWS_S)

    fitted = fit_arrivals(arrivals_s)

    assert len(fitted.levels) == 2
    found = expected_burstiness(fitted, rate_rps, WINDOWS_S)
    assert found.interval_cv == pytest.approx(wanted.interval_cv, rel=0.1)
    assert found.dispersion == pytest.approx(wanted.dispersion, rel=0.15)
    assert found.silence_ratio == pytest.approx(wanted.silence_ratio, abs=0.05)


@pytest.mark.parametrize(
    "arrivals_s",
    [
        [0.0, 1.0, 60.0],
        [i / 100 for i in range(500)],
        [float(i) for i in range(3000)],
        [float(i // 10) for i in range(90)],
    ],
    ids=["few", "short", "regular", "few batches"],
)
def test_fit_arrivals_is_poisson_when_nothing_else_can_be_said(arrivals_s: list[float]) -> None:
    assert fit_arrivals(arrivals_s) is POISSON


def test_fit_arrivals_takes_requests_that_come_at_once() -> None:
    """Batches of ten each second: bursty, and not a division by zero."""
    arrivals_s = [float(i // 10) for i in range(20_000)]

    assert len(fit_arrivals(arrivals_s).levels) >= 1
