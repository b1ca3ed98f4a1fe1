"""What one plan would change about another."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from thunderserve.core.plan import Phase

if TYPE_CHECKING:
    from thunderserve.core.plan import Plan

__all__ = ["GroupChange", "PlanDiff", "RouteChange", "diff_plans"]

_SAME_WEIGHT = 5e-5


@dataclass(frozen=True, slots=True)
class GroupChange:
    """A group whose phase differs; None where a plan does not have the group."""

    group: str
    before: Phase | None
    after: Phase | None

    @property
    def is_flip(self) -> bool:
        """True when both plans have the group."""
        return self.before is not None and self.after is not None


@dataclass(frozen=True, slots=True)
class RouteChange:
    """A route whose share of all requests differs; 0 where a plan does not have it."""

    prefill: str
    decode: str
    before: float
    after: float


@dataclass(frozen=True, slots=True)
class PlanDiff:
    """Empty when the second plan would serve as the first one does."""

    groups: tuple[GroupChange, ...]
    routes: tuple[RouteChange, ...]

    @property
    def flips(self) -> tuple[GroupChange, ...]:
        """The groups that would change their phase."""
        return tuple(change for change in self.groups if change.is_flip)


def diff_plans(before: Plan, after: Plan) -> PlanDiff:
    """Groups by id, and routes with the largest change first."""
    phases = [{group.id: group.phase for group in plan.groups} for plan in (before, after)]
    groups = (
        GroupChange(name, phases[0].get(name), phases[1].get(name))
        for name in sorted(phases[0].keys() | phases[1].keys())
    )
    weights = [{(r.prefill, r.decode): r.weight for r in plan.routes} for plan in (before, after)]
    routes = [
        RouteChange(*pair, weights[0].get(pair, 0.0), weights[1].get(pair, 0.0))
        for pair in sorted(weights[0].keys() | weights[1].keys())
    ]
    changed = (r for r in routes if abs(r.after - r.before) > _SAME_WEIGHT)
    return PlanDiff(
        tuple(change for change in groups if change.before is not change.after),
        tuple(sorted(changed, key=lambda r: -abs(r.after - r.before))),
    )
