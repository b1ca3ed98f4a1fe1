"""Small clusters on which every strategy plans in well under a second."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

import pytest

from thunderserve.control.planner.problem import EngineLimits, Objective, Problem
from thunderserve.control.planner.strategies.registry import strategy_named
from thunderserve.core.plan import Phase
from thunderserve.core.slo import Slo

if TYPE_CHECKING:
    from collections.abc import Callable

    from thunderserve.core.plan import Plan

    MakeProblem = Callable[..., Problem]
    Planned = Callable[[str, Problem], Plan]


@pytest.fixture(scope="session")
def mixed(make_problem: MakeProblem) -> Problem:
    """Two types of GPUs on two nodes."""
    return _capacity(make_problem(["A40"] * 2, ["3090Ti"] * 2, slo=Slo(2.0, 0.15)))


@pytest.fixture(scope="session")
def equal(make_problem: MakeProblem) -> Problem:
    """Equal GPUs on one node."""
    return _capacity(make_problem(["A40"] * 2, slo=Slo(2.0, 0.15)))


@pytest.fixture(scope="session")
def planned() -> Planned:
    """Plans a strategy's plan once for each problem."""

    @cache
    def plan(name: str, problem: Problem) -> Plan:
        return strategy_named(name).plan(problem, clock=lambda: 0.0)

    return plan


def _capacity(problem: Problem) -> Problem:
    return Problem(
        cluster=problem.cluster,
        model=problem.model,
        workload=problem.workload,
        slo=problem.slo,
        engine=EngineLimits(phases=tuple(Phase)),
        objective=Objective.CAPACITY,
    )
