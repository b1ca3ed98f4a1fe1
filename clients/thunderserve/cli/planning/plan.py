"""`thunderserve plan`: groups, phases and routes for a cluster, a model and a workload."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import typer

from thunderserve.cli.planning.options import (
    Output,
    ProblemOptions,
    Seed,
    TimeBudget,
    with_options,
)
from thunderserve.console.output import OutputFormat, say, write

if TYPE_CHECKING:
    from thunderserve.control.planner.problem import Problem
    from thunderserve.control.planner.solve import Solution
    from thunderserve.core.plan import Plan

__all__ = ["command"]


@with_options
def command(
    given: ProblemOptions,
    *,
    seed: Seed = 0,
    time_budget: TimeBudget = None,
    certify: Annotated[
        bool, typer.Option("--certify", help="Also prove how close to the best plan it is.")
    ] = False,
    certify_budget: Annotated[
        float, typer.Option(min=0.01, help="Seconds for that at most.")
    ] = 60.0,
    output: Output = OutputFormat.TABLE,
) -> None:
    """Search for groups, phases and routes; no GPU and no fleet is needed."""
    from thunderserve.cli.planning.inputs import read_problem  # noqa: PLC0415 - `--help` is quick
    from thunderserve.console.views import plan_report  # noqa: PLC0415 - as above
    from thunderserve.core.plan_file import plan_to_mapping  # noqa: PLC0415 - as above

    problem = read_problem(given)
    found = _searched(problem, seed, time_budget)
    if problem.flippable_ratio > 0:
        _say_what_flips_cost(problem, found, seed, time_budget)
    plan = found.plan
    if certify:
        plan = _certified(problem, plan, certify_budget)
    write(plan_to_mapping(plan), plan_report(plan, problem.workload.rate_rps), output)


def _searched(problem: Problem, seed: int, budget_s: float | None) -> Solution:
    from thunderserve.cli.progress import timed  # noqa: PLC0415 - as above
    from thunderserve.control.planner.solve import solve_reported  # noqa: PLC0415 - as above

    with timed("searching", budget_s) as clock:
        found = solve_reported(problem, seed=seed, time_budget_s=budget_s or math.inf, clock=clock)
    report = found.report
    say(f"searched for {report.seconds:.2f} s, {report.evaluations} flows solved")
    if not report.repeatable:
        say("--time-budget ended the search: another run may find another plan")
    return found


def _say_what_flips_cost(
    problem: Problem, found: Solution, seed: int, budget_s: float | None
) -> None:
    from thunderserve.cli.progress import timed  # noqa: PLC0415 - as above
    from thunderserve.control.planner.flip_cost import flippability_cost  # noqa: PLC0415 - as above

    wanted = problem.flippable_ratio
    with timed("weighing what flips cost", budget_s) as clock:
        cost = flippability_cost(
            problem, found, seed=seed, time_budget_s=budget_s or math.inf, clock=clock
        )
    say(
        f"{cost.bound_ratio:.0%} of the GPUs can flip, {wanted:.0%} were asked for; that costs "
        f"{cost.lost_ratio:.1%} of what the best plan serves, of which {cost.free_ratio:.0%} can"
    )


def _certified(problem: Problem, plan: Plan, budget_s: float) -> Plan:
    from thunderserve.cli.progress import timed  # noqa: PLC0415 - as above
    from thunderserve.control.planner.certificate import certify  # noqa: PLC0415 - as above

    with timed("bounding the best plan", budget_s) as clock:
        began_s = clock()
        certificate = certify(problem, plan, clock=clock, time_budget_s=budget_s)
        say(f"bounded the best plan in {clock() - began_s:.2f} s")
    return replace(plan, certificate=certificate)
