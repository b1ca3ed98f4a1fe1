"""Waits behind Poisson arrivals and behind bursts, beside a queue that is simulated."""

from __future__ import annotations

from itertools import islice

import numpy as np
import pytest

from thunderserve.control.planner.physics.waiting import Levels, Waits
from thunderserve.core.draws import Draws
from thunderserve.core.trace import sample_trace
from thunderserve.core.workload import POISSON, Arrivals, Level, Workload

SERVICE_S = 0.1
SLACKS_S = np.array([0.0, 0.2, 1.0, 4.0])
BURSTS = Arrivals((Level(3.0, 0.2, 2.0), Level(0.5, 0.8, 8.0)))


def exponential(levels: Levels, *loads: float) -> Waits:
    mean_s, square_s2 = np.array(SERVICE_S), np.array(2 * SERVICE_S**2)
    return Waits.at(levels, np.array(loads), mean_s, square_s2)


def longer(waits: Waits) -> np.ndarray:
    """Over all levels' requests: (loads, slacks)."""
    return np.asarray(np.einsum("l,kls->ks", waits.levels.request, waits.longer_than(SLACKS_S)))


def simulated(arrivals: Arrivals, load: float, requests: int) -> np.ndarray:
    """One server, exponential service."""
    workload = Workload("w", load / SERVICE_S, ((1.0, 1.0),), arrivals)
    draws, free_s, waits_s = Draws(7), 0.0, []
    for request in islice(sample_trace(workload, requests=requests, seed=3).requests, requests):
        waits_s.append(max(0.0, free_s - request.arrival_s))
        free_s = max(free_s, request.arrival_s) + draws.exponential(SERVICE_S)
    return np.asarray((np.array(waits_s)[:, None] > SLACKS_S).mean(axis=0))


def test_waits_are_exact_for_poisson_arrivals_and_exponential_service() -> None:
    """An M/M/1 queue waits longer than t with probability rho exp(-t (1 - rho) / mean)."""
    for load in (0.3, 0.9):
        expected = load * np.exp(-SLACKS_S * (1 - load) / SERVICE_S)
        found = longer(exponential(Levels.of(POISSON), load))[0]
        assert found == pytest.approx(expected, abs=1e-9)


def test_mean_wait_is_pollaczek_and_khinchine_s() -> None:
    mean_s, square_s2 = 0.1, 0.015
    waits = Waits.at(Levels.of(POISSON), np.array([0.8]), np.array(mean_s), np.array(square_s2))
    expected = 0.8 / mean_s * square_s2 / (2 * 0.2)
    assert waits.mean_s()[0] == pytest.approx(expected)


@pytest.mark.parametrize("load", [0.3, 0.7])
def test_waits_behind_bursts_are_those_of_a_simulated_queue(load: float) -> None:
    """At 0.7 the bursts are twice what the server can do, for two seconds at a time."""
    found = longer(exponential(Levels.of(BURSTS), load))[0]
    assert found == pytest.approx(simulated(BURSTS, load, 60_000), abs=0.04)


def test_equal_levels_are_no_bursts() -> None:
    levels = Levels.of(Arrivals((Level(1.0, 0.5, 3.0), Level(1.0, 0.5, 9.0))))
    plain = longer(exponential(Levels.of(POISSON), 0.6))
    assert longer(exponential(levels, 0.6)) == pytest.approx(plain, abs=0.01)


def test_more_load_makes_more_requests_wait_and_nobody_waits_less_than_nothing() -> None:
    waits = exponential(Levels.of(BURSTS), 0.1, 0.4, 0.8, 0.97)
    late = longer(waits)
    assert (np.diff(late, axis=0) >= -1e-9).all()
    assert (waits.longer_than(np.array([-0.1])) == 1.0).all()


def test_short_levels_are_smoothed_away_by_what_remembers_long() -> None:
    levels = Levels.of(BURSTS)
    assert levels.smoothed(0.0) == pytest.approx(levels.factor)
    assert levels.smoothed(1e6) == pytest.approx([1.0, 1.0], abs=1e-3)
    assert levels.smoothed(10.0) @ levels.time == pytest.approx(1.0)
