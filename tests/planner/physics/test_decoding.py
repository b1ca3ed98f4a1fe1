"""A batch that shares a group: memory bounds it, load slows it, bounds are met or not."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from thunderserve.control.planner.physics.decoding import DecodeFigures, step_bound_s
from thunderserve.control.planner.physics.population import Population
from thunderserve.control.planner.physics.sample import Sample
from thunderserve.control.planner.physics.waiting import Levels
from thunderserve.core.catalogue import catalogue
from thunderserve.core.cost import CostModel, StageHardware
from thunderserve.core.hardware import Link
from thunderserve.core.model import model_preset
from thunderserve.core.workload import POISSON, Workload, workload_preset

COST = CostModel(model_preset("llama-30b"))
RATES = (
    COST.stage_rates(StageHardware(60, (catalogue("paper_table1").get("A40"),) * 4, Link(32e9))),
)
CONV = Sample.of(workload_preset("azure-conv"))
STEADY = Levels.of(POISSON)


def figures(
    sample: Sample = CONV, room_tokens: float = 60_000, hold_s: float = 0.0, most: int = 99
) -> DecodeFigures:
    found = DecodeFigures.of(
        RATES, sample, STEADY, room_tokens=room_tokens, max_batch=most, hold_s=hold_s
    )
    assert found is not None
    return found


def in_time(found: DecodeFigures, load_rps: float, step_s: float, slack_s: float = 10.0) -> float:
    size = len(found.sample.prompt)
    met = found.in_time(np.array([load_rps]), np.full(size, step_s), np.full(size, slack_s))
    return float(met[0, 0] @ found.sample.share)


def test_more_memory_serves_more_up_to_the_engine_s_batch() -> None:
    rates = [figures(room_tokens=room).capacity_rps for room in (5_000, 20_000, 80_000)]
    assert rates == sorted(rates)
    assert len(figures(most=3).steps_s) == 3
    assert (
        DecodeFigures.of(RATES, CONV, STEADY, room_tokens=1_000, max_batch=99, hold_s=0.0) is None
    )


def test_memory_that_is_set_aside_early_serves_fewer() -> None:
    assert figures(hold_s=3.0).capacity_rps < figures().capacity_rps


def test_an_idle_group_meets_the_step_of_a_batch_of_one() -> None:
    found = figures()
    assert in_time(found, 0.0, found.idle_s * 1.001) == pytest.approx(1.0)
    assert in_time(found, 0.0, found.idle_s * 0.999) == pytest.approx(0.0)


def test_attainment_falls_with_load_and_is_nothing_beyond_capacity() -> None:
    found = figures()
    bound_s = float(found.steps_s[len(found.steps_s) // 2])
    shares = (0.1, 0.5, 0.8, 0.95)
    ratios = [in_time(found, share * found.capacity_rps, bound_s) for share in shares]
    assert ratios == sorted(ratios, reverse=True)
    assert ratios[0] > 0.9 > ratios[-1]
    assert in_time(found, 1.1 * found.capacity_rps, 10.0) == 0.0


def test_requests_wait_for_memory_when_it_is_full() -> None:
    found = figures(room_tokens=8_000)
    load = 0.95 * found.capacity_rps
    assert in_time(found, load, 10.0, 0.5) < in_time(found, load, 10.0, 5.0) < 1.0


def test_requests_that_never_fit_are_never_in_time() -> None:
    sample = Sample.of(Workload("two", 1.0, ((1_000, 10), (9_000, 10))))
    found = figures(sample, room_tokens=6_000)
    assert in_time(found, 0.0, 10.0) == pytest.approx(0.5)


def test_population_of_a_constant_server_is_geometric() -> None:
    """One server of rate 1: n requests with probability (1 - rho) rho^n, those beyond two wait."""
    population = Population(STEADY, np.array([0.0, 1.0, 1.0]), 2.0, 1.0)
    shares = population.shares(np.array([[0.6]]))[0, 0]
    assert shares == pytest.approx([0.4, 0.24, 0.36])
    late = population.waits_longer(np.array([0.6]), shares[None, None], np.array([0.0, 1.0]))
    assert late[0, 0] == pytest.approx([0.36, 0.36 * np.exp(-0.4)])


def test_step_bound_leaves_what_the_transfer_and_the_first_token_take() -> None:
    sample = Sample.of(Workload("w", 1.0, ((100, 11), (200, 1))))
    bound = step_bound_s(
        sample,
        tpot_s=0.2,
        e2e_s=None,
        exposed_s=np.array([1.0, 1.0]),
        first_s=np.array([0.5, 0.5]),
    )
    assert bound[0] == pytest.approx(0.1)
    assert bound[1] == np.inf, "one token has no pace"
    tight = step_bound_s(
        sample, tpot_s=0.2, e2e_s=2.0, exposed_s=np.full(2, 1.0), first_s=np.full(2, 0.5)
    )
    assert tight[0] == pytest.approx(0.05)


def test_bursts_make_requests_wait_for_memory() -> None:
    bursty = Levels.of(workload_preset("azure-code").arrivals)
    found = figures(room_tokens=8_000)
    load = 0.5 * found.capacity_rps
    stormy = replace(found, population=replace(found.population, levels=bursty))
    met = stormy.in_time(
        np.array([load]), np.full(len(CONV.prompt), 10.0), np.full(len(CONV.prompt), 2.0)
    )
    assert met[0] @ CONV.share @ bursty.request < in_time(found, load, 10.0, 2.0) - 0.1
