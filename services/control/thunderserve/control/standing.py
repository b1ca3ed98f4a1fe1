"""What stands: the published plan, and what operators want of it."""

from __future__ import annotations

from dataclasses import dataclass

from thunderserve.core.fleet import PlanView
from thunderserve.core.plan import Plan
from thunderserve.core.workload import Workload

__all__ = ["Intent", "Standing"]


@dataclass(frozen=True, slots=True)
class Intent:
    """What was asked for; the plan follows from it and from the workers that are alive.

    Attributes:
        applied: The plan that an operator applied: its routes are kept. None: routes are solved.
        drained: Groups taken out of the routes by an operator.
        pursued: A plan that is being applied flip by flip; whoever leads goes on with it.
        flipping: The group whose phase is changing now; empty for none.
        workload: What routes are solved for; None is what the control plane was configured with.
    """

    applied: Plan | None = None
    drained: frozenset[str] = frozenset()
    flipping: str = ""
    pursued: Plan | None = None
    workload: Workload | None = None


@dataclass(frozen=True, slots=True)
class Standing:
    """A published view and the intent that it answers; one record of the store."""

    view: PlanView
    intent: Intent

    @property
    def plan(self) -> Plan:
        """The published plan."""
        return self.view.plan
