"""Prompt work that a decoding request meets, beside a simulated queue."""

from __future__ import annotations

import numpy as np
import pytest

from thunderserve.control.planner.riding import works_ahead_beyond
from thunderserve.core.draws import Draws

WORKS_S = np.array([0.1, 0.5])
SHARE = np.array([0.5, 0.5])


def exceeded(rate_rps: float, within_s: float, beyond_s: float) -> float:
    shape = (1, 1, len(WORKS_S))
    found = works_ahead_beyond(
        np.array([[rate_rps]]),
        WORKS_S,
        SHARE,
        within_s=np.full(shape, within_s),
        beyond_s=np.full(shape, beyond_s),
    )
    return float(found[0, 0, 0])


def simulated(rate_rps: float, within_s: float, beyond_s: float, requests: int = 40_000) -> float:
    """What a request leaves behind when its own work is done, and what comes after it."""
    draws = Draws(11)
    times_s, works_s = [], []
    now_s = 0.0
    for _ in range(requests):
        now_s += draws.exponential(1 / rate_rps)
        times_s.append(now_s)
        works_s.append(draws.pick((0.1, 0.5)))
    times, works = np.array(times_s), np.array(works_s)
    total = np.concatenate([[0.0], np.cumsum(works)])
    done, free_s = np.empty(requests), 0.0
    for i in range(requests):
        free_s = max(free_s, times[i]) + works[i]
        done[i] = free_s
    until = np.searchsorted(times, done + within_s)
    ahead = total[until] - total[np.arange(1, requests + 1)]
    return float((ahead[: requests // 2] > beyond_s).mean())


@pytest.mark.parametrize(
    ("rate_rps", "within_s", "beyond_s"), [(1.0, 1.0, 0.55), (2.0, 2.0, 1.3), (2.5, 0.5, 0.95)]
)
def test_work_ahead_is_that_of_a_simulated_queue(
    rate_rps: float, within_s: float, beyond_s: float
) -> None:
    expected = simulated(rate_rps, within_s, beyond_s)
    assert exceeded(rate_rps, within_s, beyond_s) == pytest.approx(expected, abs=0.03)


def test_no_work_exceeds_no_bound_only_when_nothing_comes() -> None:
    assert exceeded(1e-9, 1.0, 0.5) == pytest.approx(0.0, abs=1e-3)
    assert exceeded(1.0, 1.0, -0.1) == 1.0
    assert exceeded(10.0, 1.0, 0.5) == 1.0
