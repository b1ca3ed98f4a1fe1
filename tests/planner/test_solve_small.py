"""What the search found is improved where that is certain: on few GPUs, and by chunk size."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from thunderserve.control.planner.certificate.best import best_of
from thunderserve.control.planner.flow.evaluate import Evaluator
from thunderserve.control.planner.problem import EngineLimits, Problem
from thunderserve.control.planner.solve import SearchSettings, solve, solve_reported
from thunderserve.core.plan import Phase
from thunderserve.core.workload import POISSON, workload_preset

MakeProblem = Callable[..., Problem]
Clock = Callable[[], float]

QUICK = SearchSettings(starts=2, neighbours=4, samples=20, tenure=10, patience=4)


def test_plan_is_the_proven_best_when_the_cluster_is_small(
    make_problem: MakeProblem, still_clock: Clock
) -> None:
    """A search that may hardly look anywhere loses nothing on a few GPUs."""
    problem = make_problem(
        *[["A5000", "A5000", "A40", "A40"], ["A5000", "3090Ti", "A40"]],
        model="opt-13b",
        rate_rps=4.0,
        gbit_per_s=10.0,
    )
    lazy = SearchSettings(starts=1, neighbours=1, samples=1, patience=1, evaluations=1)

    found = solve_reported(problem, clock=still_clock, settings=lazy)

    best = best_of(Evaluator(problem))
    assert best.exact
    assert found.report.score == pytest.approx(best.objective, rel=1e-3)


def test_plan_has_the_chunk_size_that_serves_most(
    make_problem: MakeProblem, still_clock: Clock
) -> None:
    """Behind a slow link, small chunks hide more of the transfer."""
    problem = make_problem(
        *[["A40"] * 4, ["A6000"] * 4, ["A5000"] * 4],
        workload=replace(workload_preset("azure-code"), arrivals=POISSON),
        rate_rps=1.0,
        gbit_per_s=5.0,
        engine=EngineLimits(phases=(Phase.PREFILL, Phase.DECODE), chunk_tokens=(8192, 512)),
    )

    assert solve(problem, clock=still_clock, settings=QUICK).chunk_tokens == 512
