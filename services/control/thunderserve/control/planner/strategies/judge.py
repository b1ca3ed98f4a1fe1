"""Choosing between a few plans by simulating each, as several of the sources do."""

from __future__ import annotations

from typing import TYPE_CHECKING

from thunderserve.control.planner.simulator import highest_rate
from thunderserve.core.trace import sample_trace

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from thunderserve.control.planner.problem import Problem
    from thunderserve.control.planner.simulator import ServingPolicy
    from thunderserve.core.plan import Plan

__all__ = ["best_simulated"]

_REQUESTS = 400
_SEED = 2**32
"""Far from the seeds of the traces by which plans are compared."""

_TOLERANCE_RATIO = 0.02


def best_simulated(
    plans: Iterable[Plan], problem: Problem, policies: Sequence[ServingPolicy]
) -> Plan | None:
    """The plan that serves the highest rate on target; of equal ones, the first.

    Args:
        plans: To choose from; those without routes serve nobody.
        problem: Its workload arrives.
        policies: Ways in which the plans' system may serve; each plan has the best of them.
    """
    known = list(dict.fromkeys(plans))
    if len(known) < 2:  # noqa: PLR2004 - nothing to choose
        return known[0] if known else None
    trace = sample_trace(problem.workload, requests=_REQUESTS, seed=_SEED)

    def rate_rps(plan: Plan) -> float:
        if not plan.routes:
            return 0.0
        searches = (
            highest_rate(
                plan,
                problem,
                trace,
                target_ratio=problem.target_ratio,
                policy=policy,
                tolerance_ratio=_TOLERANCE_RATIO,
            )
            for policy in policies
        )
        return max(search.rate_rps for search in searches)

    return max(known, key=rate_rps)
