"""What an emulated fleet serves: the problem that its options pose, and a plan for it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from thunderserve.cli.planning.files import read_plan
from thunderserve.cli.planning.inputs import read_problem
from thunderserve.cli.planning.options import ProblemOptions
from thunderserve.cli.progress import timed
from thunderserve.control.planner.solve import solve
from thunderserve.control.planner.validate import validate
from thunderserve.core.errors import InvalidArgumentError

if TYPE_CHECKING:
    from thunderserve.cli.emulated.options import EmulatedOptions
    from thunderserve.control.planner.problem import Problem
    from thunderserve.core.plan import Plan

__all__ = ["problem_and_plan"]


def problem_and_plan(options: EmulatedOptions) -> tuple[Problem, Plan]:
    """The problem, and the plan of the options' file or the best that is found.

    Raises:
        InvalidArgumentError: The plan's file is for another cluster or model.
    """
    plan = None if options.plan is None else read_plan(options.plan)
    problem = read_problem(
        ProblemOptions(
            cluster=options.cluster,
            model=options.model if plan is None else plan.model,
            workload=options.workload,
            rate=options.rate_rps,
            profile=options.profile,
        )
    )
    if plan is None:
        with timed("planning", None) as clock:
            return problem, solve(problem, clock=clock)
    if violations := validate(plan, problem):
        raise InvalidArgumentError(f"--plan {options.plan}: {violations[0].reason}", param="plan")
    return problem, plan
