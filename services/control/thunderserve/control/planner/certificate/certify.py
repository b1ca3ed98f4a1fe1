"""How close a plan is to the best one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from thunderserve.control.planner.certificate.best import best_of
from thunderserve.control.planner.certificate.worth import plan_worth
from thunderserve.control.planner.flow import Evaluator
from thunderserve.core.plan import Certificate, Plan

if TYPE_CHECKING:
    from collections.abc import Callable

    from thunderserve.control.planner.problem import Problem

__all__ = ["certify"]


def certify(
    problem: Problem, plan: Plan, *, clock: Callable[[], float], time_budget_s: float = 60.0
) -> Certificate:
    """What a plan has of the problem's objective, and what no plan exceeds.

    The bound is over all plans that the planner could make: groups of any of the cluster's GPUs,
    within the engine's limits, that hold the model in one of the ways `Parallelism` knows. It is by
    the planner's own physics: it says how good the search is, not how good the cost model is.

    Args:
        problem: What is planned for.
        plan: Of any strategy.
        clock: Monotonic seconds.
        time_budget_s: After which the bound is taken as it is; the same until then.
    """
    began_s = clock()
    evaluator = Evaluator(problem)
    own = plan.chunk_tokens in problem.engine.chunk_tokens[1:]
    chunked = evaluator.with_chunk(plan.chunk_tokens) if own else evaluator
    objective = plan_worth(chunked, plan).objective_rps
    best = best_of(evaluator, time_limit_s=time_budget_s - (clock() - began_s))
    return Certificate(
        "exact" if best.exact else "bound", objective, max(objective, best.upper_bound)
    )
