"""A wanted share of the GPUs can flip, and what that costs is told."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from thunderserve.control.planner.flip_cost import flippability_cost
from thunderserve.control.planner.presets import cluster_preset
from thunderserve.control.planner.problem import EngineLimits, Problem
from thunderserve.control.planner.search.flexibility import can_flip, flippable_ratio
from thunderserve.control.planner.solve import SearchSettings, solve_reported
from thunderserve.control.planner.validate import validate
from thunderserve.core.model import model_preset
from thunderserve.core.plan import Gpu, Group, Phase, Stage
from thunderserve.core.slo import Slo
from thunderserve.core.workload import workload_preset

if TYPE_CHECKING:
    from collections.abc import Callable

QUICK = SearchSettings(starts=2, neighbours=4, samples=20, tenure=10, patience=4)


def group(phase: Phase, pp: int, gpus: int) -> Group:
    held = [Gpu(f"n0/{i}", "A40") for i in range(gpus)]
    tp = gpus // pp
    stages = tuple(Stage(10, tuple(held[i * tp : (i + 1) * tp])) for i in range(pp))
    return Group(f"{phase}{pp}", phase, tp, pp, stages)


def test_groups_of_few_stages_that_do_half_the_work_can_flip() -> None:
    engine = EngineLimits(flip_max_pp=2)
    assert can_flip(Phase.PREFILL, 2, engine)
    assert not can_flip(Phase.PREFILL, 3, engine)
    assert not can_flip(Phase.COLOCATED, 1, engine)


def test_ratio_counts_gpus() -> None:
    groups = [group(Phase.PREFILL, 2, 6), group(Phase.DECODE, 1, 2), group(Phase.COLOCATED, 1, 2)]
    assert flippable_ratio(groups, EngineLimits()) == pytest.approx(0.2)
    assert flippable_ratio([], EngineLimits()) == 1.0


@pytest.mark.parametrize("wanted_ratio", [0.5, 1.0])
@pytest.mark.parametrize("workload", ["azure-conv", "azure-code"])
def test_wanted_share_can_flip_and_costs_something(
    still_clock: Callable[[], float], workload: str, wanted_ratio: float
) -> None:
    preset = workload_preset(workload)
    problem = Problem(
        cluster_preset("paper-cloud-32"),
        model_preset("llama-30b"),
        preset.with_rate(2.5 * preset.rate_rps),
        Slo(ttft_s=3.0, tpot_s=0.15),
        flippable_ratio=wanted_ratio,
    )
    bound = solve_reported(problem, clock=still_clock, settings=QUICK)
    cost = flippability_cost(problem, bound, clock=still_clock, settings=QUICK)
    assert cost.bound_ratio == flippable_ratio(cost.bound.plan.groups, problem.engine)
    assert cost.bound_ratio >= wanted_ratio
    assert validate(cost.bound.plan, problem) == ()
    assert 0 <= cost.lost_ratio < 0.9
    if wanted_ratio == 1.0:
        assert cost.free_ratio < 1.0
        assert cost.lost_ratio > 0


def test_share_that_cannot_be_had_is_told(
    still_clock: Callable[[], float], make_problem: Callable[..., Problem]
) -> None:
    """With tp 1 at most, this model takes two stages everywhere."""
    problem = make_problem(["A40"] * 4, model="llama-30b", engine=EngineLimits(max_tp=1))
    problem = replace(problem, flippable_ratio=1.0)
    bound = solve_reported(problem, clock=still_clock, settings=QUICK)
    cost = flippability_cost(problem, bound, clock=still_clock, settings=QUICK)
    assert cost.bound_ratio == 0.0
    assert cost.bound.report.score == pytest.approx(cost.free.report.score, rel=0.05)
