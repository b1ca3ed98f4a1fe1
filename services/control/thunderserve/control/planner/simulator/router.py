"""Which lane serves the next request."""

from __future__ import annotations

from typing import TYPE_CHECKING

from thunderserve.control.planner.simulator.policy import Dispatch
from thunderserve.core.chairman import Claimant, choose

if TYPE_CHECKING:
    from collections.abc import Mapping

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

    def draw(self) -> tuple[Ends, Lane] | None:
        """The next route; None when the plan has none."""
        if not self._claimants:
            return None
        ends = choose(self._claimants).ends if self._weighted else self._shortest()
        return ends, self._lanes[ends]

    def _shortest(self) -> Ends:
        return min(
            (claimant.ends for claimant in self._claimants),
            key=lambda ends: (*self._lanes[ends].queue, ends),
        )
