"""The exact optimum is what trying everything finds, and more never makes it worse."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from every_plan import every_plan
from hypothesis import given, settings
from hypothesis import strategies as st

from thunderserve.control.planner.certificate import best, best_of, optimal_plan
from thunderserve.control.planner.certificate.worth import plan_worth
from thunderserve.control.planner.flow.evaluate import Evaluator
from thunderserve.control.planner.problem import EngineLimits, Objective, Problem
from thunderserve.control.planner.solve import SearchSettings, solve
from thunderserve.control.planner.validate import validate
from thunderserve.core.errors import InvalidArgumentError
from thunderserve.core.plan import Phase

if TYPE_CHECKING:
    from collections.abc import Callable

    MakeProblem = Callable[..., Problem]

QUICK = SearchSettings(neighbours=8, tenure=10, patience=4)
ALL = (Phase.COLOCATED, Phase.PREFILL, Phase.DECODE)


@pytest.mark.parametrize(
    ("nodes", "engine", "given"),
    [
        ((["A40", "A40", "3090Ti"],), EngineLimits(), {"rate_rps": 9.0}),
        ((["A40", "A6000"],), EngineLimits(phases=ALL), {"rate_rps": 9.0}),
        ((["A40"] * 2, ["3090Ti"] * 2), EngineLimits(), {"rate_rps": 20.0, "gbit_per_s": 1.0}),
        ((["A40", "A5000"], ["3090Ti"]), EngineLimits(max_nodes=2), {"rate_rps": 9.0}),
        ((["A40"] * 3, ["A5000"] * 3), EngineLimits(), {"rate_rps": 20.0}),
        ((["A40"] * 2, ["A40"] * 2), EngineLimits(unequal_pp=False), {"model": "opt-13b"}),
    ],
    ids=["3-mixed", "colocated", "slow-link", "across-nodes", "3+3", "alike-nodes"],
)
def test_exact_is_what_trying_everything_finds(
    make_problem: MakeProblem,
    nodes: tuple[list[str], ...],
    engine: EngineLimits,
    given: dict[str, object],
) -> None:
    """Every partition of the GPUs, every phase, every design: through the planner's evaluator."""
    problem = make_problem(*nodes, engine=engine, **given)
    found = best_of(Evaluator(problem))
    assert found.exact
    most = max(plan.flow.attained_rps for plan in every_plan(problem))
    assert found.upper_bound == pytest.approx(most, rel=1e-4)


NODES = st.lists(
    st.lists(st.sampled_from(["A40", "3090Ti", "A5000"]), min_size=1, max_size=3),
    min_size=1,
    max_size=2,
)


def optimum(problem: Problem) -> float:
    found = best_of(Evaluator(problem))
    assert found.exact
    return found.upper_bound


@given(
    nodes=NODES, rate_rps=st.sampled_from([0.5, 5.0, 50.0]), objective=st.sampled_from(Objective)
)
@settings(max_examples=5, deadline=None, derandomize=True)
def test_one_more_gpu_never_hurts(
    make_problem: MakeProblem, nodes: list[list[str]], rate_rps: float, objective: Objective
) -> None:
    """Whether it joins a node or comes with a node of its own."""
    problem = replace(make_problem(*nodes, rate_rps=rate_rps), objective=objective)
    before = optimum(problem)
    joined = make_problem(*nodes[:-1], [*nodes[-1], "A40"]).cluster
    beside = make_problem(*nodes, ["A40"]).cluster
    for cluster in (joined, beside):
        assert optimum(replace(problem, cluster=cluster)) >= before * (1 - 1e-5)


@given(nodes=NODES, gbit_per_s=st.sampled_from([0.5, 2.0, 8.0]))
@settings(max_examples=3, deadline=None, derandomize=True)
def test_bound_is_not_below_the_optimum_nor_that_below_the_search(
    make_problem: MakeProblem, nodes: list[list[str]], gbit_per_s: float
) -> None:
    problem = make_problem(*nodes, *nodes, rate_rps=50.0, gbit_per_s=gbit_per_s)
    exact = best_of(Evaluator(problem))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(best, "MOST_LANES", 0)
        bound = best_of(Evaluator(problem))
    assert (exact.exact, bound.exact) == (True, False)
    assert bound.upper_bound >= exact.upper_bound * (1 - 1e-5)
    if exact.upper_bound > 0:
        searched = solve(problem, clock=lambda: 0.0, settings=QUICK)
        worth = plan_worth(Evaluator(problem), searched).objective_rps
        assert worth <= exact.upper_bound * (1 + 1e-4)


def test_optimal_plan_is_valid_and_has_what_was_proven(make_problem: MakeProblem) -> None:
    problem = make_problem(["A40"] * 2, ["3090Ti"] * 2, rate_rps=20.0)
    plan = optimal_plan(problem)
    assert validate(plan, problem) == ()
    assert plan.strategy == "optimal"
    worth = plan_worth(Evaluator(problem), plan).objective_rps
    assert worth == pytest.approx(optimum(problem), rel=1e-3)


def test_optimal_plan_refuses_what_it_cannot_prove(
    make_problem: MakeProblem, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(best, "MOST_LANES", 0)
    with pytest.raises(InvalidArgumentError, match="4 GPUs"):
        optimal_plan(make_problem(["A40"] * 2, ["3090Ti"] * 2))


def test_best_is_nothing_when_nothing_holds_the_model(make_problem: MakeProblem) -> None:
    found = best_of(Evaluator(make_problem(["A5000"], model="llama-30b")))
    assert (found.upper_bound, found.exact, found.seats) == (0.0, True, ())


def test_bound_of_a_problem_with_too_many_columns_is_still_true(make_problem: MakeProblem) -> None:
    """Groups of two nodes, of eight: arithmetic alone bounds them."""
    nodes = [["A40"] * 4] * 8
    problem = make_problem(*nodes, engine=EngineLimits(max_nodes=2), rate_rps=1e3)
    found = best_of(Evaluator(problem))
    assert (found.exact, found.seats) == (False, ())
    within = best_of(Evaluator(replace(problem, engine=EngineLimits())))
    assert within.upper_bound < found.upper_bound < 10 * within.upper_bound


def test_flippable_share_costs_and_is_never_called_exact(make_problem: MakeProblem) -> None:
    """Groups of several stages cannot flip."""
    problem = make_problem(
        ["A5000", "3090Ti", "A5000"], ["3090Ti"] * 2, model="opt-13b", rate_rps=20.0
    )
    free = best_of(Evaluator(problem))
    bound = best_of(Evaluator(replace(problem, flippable_ratio=1.0)))
    assert free.exact
    assert not bound.exact
    assert 0 < bound.upper_bound < free.upper_bound
