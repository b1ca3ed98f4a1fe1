"""What is expected of arrivals is what a long sample of them has."""

from __future__ import annotations

import math

import pytest

from thunderserve.core.burstiness import expected_burstiness, measure_burstiness
from thunderserve.core.trace import sample_trace
from thunderserve.core.workload import POISSON, Arrivals, Workload, workload_preset

WINDOWS_S = (1.0, 10.0)
BURSTS = Arrivals.relative([(0.0, 0.6, 12.0), (1.0, 0.3, 20.0), (8.0, 0.1, 3.0)])


def test_measure_burstiness_counts_windows_by_hand() -> None:
    """Windows of 1 s hold 2, 0, 1, 0 and 2 arrivals; the last one is not whole."""
    found = measure_burstiness([0.0, 0.5, 2.0, 4.0, 4.5, 5.2], (1.0,))

    assert found.dispersion == pytest.approx((0.8 / 1.0,))
    assert found.silence_ratio == (0.4,)
    assert found.skewness == pytest.approx((0.0,))
    gaps = (0.5, 1.5, 2.0, 0.5, 0.7)
    mean = sum(gaps) / 5
    deviation = math.sqrt(sum((gap - mean) ** 2 for gap in gaps) / 5)
    assert found.interval_cv == pytest.approx(deviation / mean)


def test_expected_burstiness_of_a_poisson_process_is_known() -> None:
    found = expected_burstiness(POISSON, 2.0, WINDOWS_S)

    assert found.interval_cv == pytest.approx(1.0)
    assert found.dispersion == pytest.approx((1.0, 1.0), abs=1e-4)
    assert found.silence_ratio == pytest.approx((math.exp(-2), math.exp(-20)), abs=1e-4)
    assert found.skewness == pytest.approx((1 / math.sqrt(2), 1 / math.sqrt(20)), abs=1e-3)


@pytest.mark.parametrize(("rate_rps", "requests"), [(3.0, 200_000), (0.2, 100_000)])
def test_expected_burstiness_is_that_of_a_long_sample(rate_rps: float, requests: int) -> None:
    """Three levels: so fast that bursts decide, and so slow that single arrivals do."""
    bursty = Workload("bursty", rate_rps, ((1, 1),), BURSTS)
    sample = sample_trace(bursty, requests=requests)

    found = measure_burstiness([r.arrival_s for r in sample.requests], WINDOWS_S)

    wanted = expected_burstiness(BURSTS, rate_rps, WINDOWS_S)
    assert found.interval_cv == pytest.approx(wanted.interval_cv, rel=0.05)
    assert found.dispersion == pytest.approx(wanted.dispersion, rel=0.05)
    assert found.silence_ratio == pytest.approx(wanted.silence_ratio, abs=0.02)
    assert found.skewness == pytest.approx(wanted.skewness, rel=0.1)


# Measured on the traces: interarrival CV, and dispersion of counts in 1, 10 and 60 s.
BURSTINESS = {
    "azure-code": (13.15, (13.2, 71.6, 164.0)),
    "azure-conv": (1.094, (1.39, 3.86, 16.1)),
}


@pytest.mark.parametrize("name", BURSTINESS)
def test_preset_is_as_bursty_as_its_trace(name: str) -> None:
    """Within 8% over endless time, and within 25% in a sample as long as some traces."""
    workload, (interval_cv, dispersion) = workload_preset(name), BURSTINESS[name]
    windows_s = (1.0, 10.0, 60.0)

    endless = expected_burstiness(workload.arrivals, workload.rate_rps, windows_s)
    sample = sample_trace(workload, requests=100_000)
    sampled = measure_burstiness([r.arrival_s for r in sample.requests], windows_s)

    for found, bound in ((endless, 0.08), (sampled, 0.25)):
        assert found.interval_cv == pytest.approx(interval_cv, rel=bound)
        assert found.dispersion == pytest.approx(dispersion, rel=bound)
