"""Certificates tell the truth about good plans and bad ones."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from thunderserve.control.planner.certificate import certify, optimal_plan
from thunderserve.control.planner.presets import cluster_preset
from thunderserve.control.planner.problem import Objective, Problem
from thunderserve.control.planner.solve import SearchSettings, solve
from thunderserve.core.model import model_preset
from thunderserve.core.plan import Plan, Route
from thunderserve.core.slo import Slo
from thunderserve.core.workload import workload_preset

if TYPE_CHECKING:
    from collections.abc import Callable

    MakeProblem = Callable[..., Problem]
    Clock = Callable[[], float]

QUICK = SearchSettings(neighbours=8, tenure=10, patience=4)


def test_certificate_of_the_best_plan_has_no_gap(
    make_problem: MakeProblem, still_clock: Clock
) -> None:
    problem = make_problem(["A40"] * 2, ["3090Ti"] * 2, rate_rps=20.0)
    certificate = certify(problem, optimal_plan(problem), clock=still_clock)
    assert certificate.method == "exact"
    assert certificate.gap_ratio < 1e-3


def test_certificate_sees_routes_that_waste_groups(
    make_problem: MakeProblem, still_clock: Clock
) -> None:
    """A plan's own weights count: one route alone leaves the other groups idle."""
    problem = make_problem(["A40"] * 2 + ["A5000"] * 2, ["3090Ti"] * 2, rate_rps=50.0)
    plan = optimal_plan(problem)
    one = max(plan.routes, key=lambda route: route.weight)
    lopsided = replace(plan, routes=(Route(one.prefill, one.decode, 1.0),))
    assert len(plan.routes) > 1
    certificate = certify(problem, lopsided, clock=still_clock)
    assert certificate.gap_ratio > 0.2
    assert certificate.upper_bound == pytest.approx(
        certify(problem, plan, clock=still_clock).upper_bound
    )


def test_certificate_of_a_plan_that_serves_nobody_is_all_gap(
    make_problem: MakeProblem, still_clock: Clock
) -> None:
    problem = make_problem(["A40"] * 2)
    empty = Plan(0, "nothing", 0, "llama-7b", (), ())
    certificate = certify(problem, empty, clock=still_clock)
    assert (certificate.objective, certificate.gap_ratio) == (0.0, 1.0)


@pytest.mark.parametrize("workload", ["azure-conv", "azure-code"])
@pytest.mark.parametrize("objective", Objective)
def test_the_paper_s_cluster_is_certified_exactly(
    still_clock: Clock, workload: str, objective: Objective
) -> None:
    problem = Problem(
        cluster_preset("paper-cloud-32"),
        model_preset("llama-30b"),
        workload_preset(workload),
        Slo(ttft_s=3.0, tpot_s=0.15),
        objective=objective,
    )
    plan = solve(problem, clock=still_clock, settings=QUICK)
    certificate = certify(problem, plan, clock=still_clock)
    assert certificate.method == "exact"
    assert 0 < certificate.objective <= certificate.upper_bound
    if objective is Objective.GOODPUT:
        assert certificate.gap_ratio <= 0.05
