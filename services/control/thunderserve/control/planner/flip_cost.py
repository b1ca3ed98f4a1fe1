"""What it costs to keep groups able to change their phase."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from thunderserve.control.planner.search import flippable_ratio
from thunderserve.control.planner.solve import SearchSettings, Solution, solve_reported

if TYPE_CHECKING:
    from collections.abc import Callable

    from thunderserve.control.planner.problem import Problem

__all__ = ["FlippabilityCost", "flippability_cost"]


@dataclass(frozen=True, slots=True)
class FlippabilityCost:
    """The best plans with and without regard to flips.

    Attributes:
        free: The best plan, whichever groups can flip.
        bound: The best of which the wanted share of GPUs can flip.
        free_ratio: The share that can flip of the free plan.
        bound_ratio: The same of the bound plan; less than wanted where no such plan was found.
    """

    free: Solution
    bound: Solution
    free_ratio: float
    bound_ratio: float

    @property
    def lost_ratio(self) -> float:
        """Share of the free plan's score that the bound plan lacks."""
        best = self.free.report.score
        return max(0.0, 1 - self.bound.report.score / best) if best > 0 else 0.0


def flippability_cost(
    problem: Problem,
    bound: Solution,
    *,
    seed: int = 0,
    time_budget_s: float = math.inf,
    clock: Callable[[], float],
    settings: SearchSettings | None = None,
) -> FlippabilityCost:
    """Searches once more, for any plan, to tell what the share of GPUs that can flip costs.

    Args:
        problem: What was planned for, with the share that was asked for.
        bound: What the search found for it.
        seed: Of both searches.
        time_budget_s: Of this search; none when left out.
        clock: Monotonic seconds.
        settings: How hard to search.

    Raises:
        InvalidArgumentError: No group of the cluster's GPUs holds the model.
    """
    free = solve_reported(
        replace(problem, flippable_ratio=0.0),
        seed=seed,
        time_budget_s=time_budget_s,
        clock=clock,
        settings=settings,
    )
    engine = problem.engine
    ratios = [flippable_ratio(found.plan.groups, engine) for found in (free, bound)]
    # A plan found under the bound is a plan without it, too.
    if ratios[1] >= problem.flippable_ratio and bound.report.score > free.report.score:
        free, ratios[0] = bound, ratios[1]
    return FlippabilityCost(free, bound, *ratios)
