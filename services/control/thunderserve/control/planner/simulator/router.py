"""Which lane serves the next request."""

from __future__ import annotations

from typing import TYPE_CHECKING

from thunderserve.control.planner.simulator.policy import Dispatch
from thunderserve.core.chairman import Claimant, choose

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from thunderserve.control.planner.simulator.job import Job
    from thunderserve.control.planner.simulator.lanes import Lane
    from thunderserve.core.plan import Plan

__all__ = ["Router"]

Ends = tuple[str, str]


class Router:
    """Draws routes by the plan's weights, as the real router does, or looks at the queues."""

    def __init__(self, plan: Plan, lanes: Mapping[Ends, Lane], dispatch: Dispatch) -> None:
        self._claimants = [
            Claimant((route.prefill, route.decode), route.weight)
            for route in plan.routes
            if route.weight > 0
        ]
        self._lanes = lanes
        self._weighted = dispatch is Dispatch.WEIGHTED

    def route(self, job: Job) -> Ends | None:
        """The two groups that get the request; None when no route could hold it.

        A pair that cannot hold it refuses, and the draw is repeated without those that would.
        """
        drawn = self._draw(self._claimants)
        if drawn is not None and not self._lanes[drawn].fits(job):
            fitting = [each for each in self._claimants if self._lanes[each.ends].fits(job)]
            drawn = self._draw(fitting)
        return drawn

    def _draw(self, claimants: Sequence[Claimant]) -> Ends | None:
        if not claimants:
            return None
        if self._weighted:
            return choose(claimants).ends
        return min(
            (claimant.ends for claimant in claimants),
            key=lambda ends: (*self._lanes[ends].queue, ends),
        )
