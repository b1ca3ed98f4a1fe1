"""A time budget ends the search, whatever is under way, with a plan."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count

import pytest

from thunderserve.control.planner.problem import EngineLimits, Problem
from thunderserve.control.planner.solve import Ending, solve_reported
from thunderserve.control.planner.validate import validate

MakeProblem = Callable[..., Problem]


def test_search_stops_when_its_time_is_over(make_problem: MakeProblem) -> None:
    """The plan is the best so far then, and says so; without a budget no clock ends a search."""
    problem = make_problem(["A40"] * 4, ["3090Ti"] * 4)
    ticks = iter(range(10_000))
    rushed = solve_reported(problem, clock=lambda: float(next(ticks)), time_budget_s=1.0)
    assert validate(rushed.plan, problem) == ()
    assert rushed.plan.search_seconds >= 1.0
    assert rushed.report.ending is Ending.TIME
    assert not rushed.report.repeatable
    assert rushed.plan.reason.endswith("search cut after 1 s")
    slow = count(0.0, 1e6)
    patient = solve_reported(problem, clock=lambda: next(slow))
    assert patient.report.repeatable
    assert "cut" not in patient.plan.reason
    assert rushed.report.evaluations < patient.report.evaluations
    assert rushed.report.score <= patient.report.score


@pytest.mark.parametrize("readings", [0, 100, 400])
def test_little_is_done_beyond_the_time_budget(make_problem: MakeProblem, readings: int) -> None:
    """Whatever was under way is cut short: one state's flow, and the plan's own, are all."""
    problem = make_problem(
        *[["A40"] * 4, ["3090Ti"] * 3, ["A5000", "A6000"]] * 3,
        rate_rps=90.0,
        engine=EngineLimits(chunk_tokens=(2048, 512)),
    )
    ticks = iter(range(100_000))
    found = solve_reported(problem, clock=lambda: float(next(ticks)), time_budget_s=float(readings))
    assert found.report.ending is Ending.TIME
    assert validate(found.plan, problem) == ()
    assert found.report.seconds <= readings + 10
