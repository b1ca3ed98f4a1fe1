"""Chunks of prompts ride along in decode steps, at a price for both."""

from __future__ import annotations

import numpy as np
import pytest

from thunderserve.control.planner.physics.colocating import ColocatedFigures
from thunderserve.control.planner.physics.sample import Sample
from thunderserve.control.planner.physics.waiting import Levels
from thunderserve.core.catalogue import catalogue
from thunderserve.core.cost import CostModel, StageHardware
from thunderserve.core.hardware import Link
from thunderserve.core.model import model_preset
from thunderserve.core.workload import POISSON, workload_preset

COST = CostModel(model_preset("llama-30b"))
RATES = (
    COST.stage_rates(StageHardware(60, (catalogue("paper_table1").get("A40"),) * 4, Link(32e9))),
)
CODE = Sample.of(workload_preset("azure-code"))


def figures(chunk_tokens: int, room_tokens: float = 60_000) -> ColocatedFigures:
    found = ColocatedFigures.of(
        RATES,
        CODE,
        Levels.of(POISSON),
        chunk_tokens=chunk_tokens,
        room_tokens=room_tokens,
        max_batch=64,
    )
    assert found is not None
    return found


def ratio(found: ColocatedFigures, load_rps: float, first_s: float, step_s: float) -> float:
    size = len(CODE.prompt)
    bounds = np.full(size, first_s), np.full(size, step_s)
    return float(found.in_time(np.array([load_rps]), *bounds)[0, 0] @ CODE.share)


def test_steps_slow_down_as_prompts_ride_along() -> None:
    found = figures(2048)
    steps = [found.step_s(share * found.capacity_rps) for share in (0.0, 0.3, 0.6, 0.9)]
    assert steps == sorted(steps)
    assert steps[0] == pytest.approx(found.rounds.mean_s[0])
    assert steps[-1] > 2 * steps[0]


def test_finer_chunks_keep_the_pace_that_coarse_ones_break() -> None:
    """A chunk of 256 tokens is less than the bound, one of 4096 tokens is several bounds."""
    load = 0.5 * figures(4096).capacity_rps
    fine, coarse = (ratio(figures(size), load, 1e3, 0.15) for size in (256, 4096))
    assert fine > 0.95
    assert coarse < 0.9


def test_first_tokens_wait_as_load_rises() -> None:
    found = figures(1024)
    ratios = [ratio(found, share * found.capacity_rps, 3.0, 1e3) for share in (0.05, 0.5, 0.9)]
    assert ratios == sorted(ratios, reverse=True)
    assert ratios[0] > 0.95 > ratios[-1]


def test_nothing_is_in_time_beyond_capacity_or_a_bound_below_one_step() -> None:
    found = figures(1024)
    assert ratio(found, found.capacity_rps / 0.9, 1e3, 1e3) == 0.0
    ends_at_once = CODE.share[CODE.steps == 0].sum()
    assert ratio(found, 0.0, 1e3, found.idle_s * 1e-3) == pytest.approx(ends_at_once, abs=1e-6)


def test_more_memory_never_serves_fewer() -> None:
    rates = [figures(1024, room).capacity_rps for room in (9_000, 20_000, 80_000)]
    assert rates == sorted(rates)
