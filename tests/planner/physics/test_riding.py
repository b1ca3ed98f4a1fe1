"""Prompt work that a decoding request meets, beside a simulated queue."""

from __future__ import annotations

import numpy as np
import pytest

from thunderserve.control.planner.physics.riding import busy_beyond
from thunderserve.core.draws import Draws

WORKS_S = np.array([0.1, 0.5])
SHARE = np.array([0.5, 0.5])


def exceeded(rate_rps: float, within_s: float, beyond_s: float) -> float:
    shape = (1, 1, len(WORKS_S))
    found = busy_beyond(
        np.array([[rate_rps]]),
        WORKS_S,
        SHARE,
        within_s=np.full(shape, within_s),
        beyond_s=np.full(shape, beyond_s),
    )
    return float(found[0, 0, 0])


def simulated(rate_rps: float, within_s: float, beyond_s: float, requests: int = 40_000) -> float:
    """How often a server is busy for longer than the bound after a request's work is done."""
    draws = Draws(11)
    starts, works, done = (np.empty(requests) for _ in range(3))
    now_s = free_s = 0.0
    for i in range(requests):
        now_s += draws.exponential(1 / rate_rps)
        works[i] = draws.pick((0.1, 0.5))
        starts[i] = max(now_s, free_s)
        done[i] = free_s = starts[i] + works[i]
    total = np.concatenate([[0.0], np.cumsum(works)])

    def busy_until(moments: np.ndarray) -> np.ndarray:
        last = np.searchsorted(starts, moments, side="right") - 1
        return np.asarray(total[last] + np.minimum(works[last], moments - starts[last]))

    looked_at = done[: requests // 2]
    busy = busy_until(looked_at + within_s) - busy_until(looked_at)
    return float((busy > beyond_s + 1e-9).mean())


@pytest.mark.parametrize(
    ("rate_rps", "within_s", "beyond_s"),
    [(1.0, 1.0, 0.55), (2.0, 2.0, 1.3), (2.5, 0.5, 0.35), (1.0, 8.0, 2.5)],
)
def test_busy_time_is_that_of_a_simulated_queue(
    rate_rps: float, within_s: float, beyond_s: float
) -> None:
    expected = simulated(rate_rps, within_s, beyond_s)
    assert exceeded(rate_rps, within_s, beyond_s) == pytest.approx(expected, abs=0.05)


def test_no_bound_is_exceeded_when_nothing_comes_and_all_are_in_overload() -> None:
    assert exceeded(1e-9, 1.0, 0.5) == pytest.approx(0.0, abs=1e-3)
    assert exceeded(1.0, 1.0, -0.1) == 1.0
    assert exceeded(10.0, 1.0, 0.5) == 1.0
