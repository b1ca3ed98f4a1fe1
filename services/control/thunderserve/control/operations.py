"""What operators ask of the fleet: apply a plan, compute one, drain a group."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING

from thunderserve.control.changes import flips_between
from thunderserve.control.inventory import group_statuses, links_of
from thunderserve.control.pursuit import Pursuit
from thunderserve.core.errors import (
    ConflictError,
    InvalidArgumentError,
    NotFoundError,
    PreconditionError,
)

if TYPE_CHECKING:
    from thunderserve.control.changes import FlipRules
    from thunderserve.control.flips import Flips
    from thunderserve.control.leadership import Leadership
    from thunderserve.control.observer import Observer
    from thunderserve.control.planning import Planner
    from thunderserve.control.publisher import Publisher
    from thunderserve.control.registry import Registry
    from thunderserve.control.standing import Standing
    from thunderserve.control.steward import Steward
    from thunderserve.core.fleet import GroupStatus
    from thunderserve.core.links import MeasuredLink
    from thunderserve.core.plan import Phase, Plan
    from thunderserve.core.workload import Workload

__all__ = ["Operations"]


class Operations:
    """Carries out what an operator asks; every method raises ThunderServeError.

    Args:
        model: Name of the served model.
        observer: What is known.
        publisher: Published plans.
        steward: Publishes plans.
        flips: Changes phases.
        planner: Computes plans.
        leadership: Only the leader changes anything.
        registry: What attached members said last.
        rules: For the flips that a plan needs.
        settle_s: How long after its election a leader waits for a plan's workers.
    """

    def __init__(
        self,
        model: str,
        *,
        observer: Observer,
        publisher: Publisher,
        steward: Steward,
        flips: Flips,
        planner: Planner,
        leadership: Leadership,
        registry: Registry,
        rules: FlipRules,
        settle_s: float,
    ) -> None:
        self._model = model
        self._observer = observer
        self._publisher = publisher
        self._steward = steward
        self._flips = flips
        self._planner = planner
        self._leadership = leadership
        self._registry = registry
        self._rules = rules
        self._pursuit = Pursuit(observer, steward, flips, leadership, rules, settle_s=settle_s)

    async def run(self) -> None:
        """Go on with plans that a leader before left half applied, for ever."""
        await self._pursuit.run()

    def groups(self) -> tuple[GroupStatus, ...]:
        """Every group and where it stands, by id."""
        return self._groups(self._observer.standing)

    def group(self, group_id: str) -> GroupStatus:
        """One group; raises NotFoundError."""
        return self._group(group_id, self._observer.standing)

    def _groups(self, standing: Standing | None) -> tuple[GroupStatus, ...]:
        statuses = group_statuses(self._observer.inventory, standing, self._planner.group_of)
        return tuple(self._with_newest_heartbeat(status) for status in statuses)

    def _group(self, group_id: str, standing: Standing | None) -> GroupStatus:
        for status in self._groups(standing):
            if status.group.id == group_id:
                return status
        raise NotFoundError(f"there is no group {group_id}")

    def links(self) -> tuple[MeasuredLink, ...]:
        """Measured links between live groups, by from and to."""
        inventory = self._observer.inventory
        newest = tuple(
            replace(live, heartbeat=self._registry.heartbeat(live.worker) or live.heartbeat)
            for live in inventory.workers
        )
        return links_of(replace(inventory, workers=newest))

    def standing(self) -> Standing:
        """What is published; raises NotFoundError before the first plan."""
        standing = self._observer.standing
        if standing is None:
            raise NotFoundError("there is no plan yet: too few workers have attached")
        return standing

    async def compute(self, workload: Workload, *, seed: int, keep_phases: bool) -> Plan:
        """A plan over the live groups that are not drained; nothing is published."""
        standing = self._observer.standing
        drained = standing.intent.drained if standing else frozenset()
        live = [
            each
            for each in self._observer.inventory.workers
            if each.heartbeat.phase is not None and each.worker.group_id not in drained
        ]
        if not live:
            raise PreconditionError("there is no live group to plan for")
        phases: dict[str, Phase] = {
            each.worker.group_id: each.heartbeat.phase for each in live if each.heartbeat.phase
        }
        return await asyncio.to_thread(
            self._planner.plan,
            [each.worker for each in live],
            phases,
            workload=workload,
            seed=seed,
            keep_phases=keep_phases,
            links=links_of(self._observer.inventory),
        )

    async def predict(self, plan: Plan, workload: Workload | None) -> Plan:
        """The plan with what the cost model expects of it, on those of its groups that are live.

        Args:
            plan: Any; phases count as the plan has them.
            workload: None is what routes are solved for now.
        """
        live = {w.worker.group_id: w.worker for w in self._observer.inventory.workers}
        phases = {group.id: group.phase for group in plan.groups if group.id in live}
        if not phases:
            raise PreconditionError("no group of the plan is live, so nothing can be predicted")
        standing = self._observer.standing
        predicted = await asyncio.to_thread(
            self._planner.predict,
            [live[group_id] for group_id in phases],
            phases,
            plan.routes,
            workload or (standing.intent.workload if standing else None),
            links_of(self._observer.inventory),
        )
        return replace(plan, predicted=predicted)

    async def apply(
        self, plan: Plan, *, expected_epoch: int, validate_only: bool, request_id: str
    ) -> Plan:
        """Publish a plan's routes as they are; phases that differ are flipped first.

        Args:
            plan: Its groups are live ones and differ from them in the phase alone.
            expected_epoch: Apply only if this is the current epoch; 0 applies to any.
            validate_only: Check everything and publish nothing.
            request_id: Repeating one returns the first one's plan.
        """
        self._leadership.fence()
        if done := await self._publisher.plan_of_request(request_id):
            return done
        needed = await asyncio.to_thread(self._checked, plan, expected_epoch)
        if validate_only:
            return replace(plan, epoch=0)
        self._pursuit.check_idle()
        wanted = replace(plan, epoch=0, created_unix_s=0.0, reason="")
        standing = await self._pursuit.apply(
            wanted,
            needed,
            reason=plan.reason or "applied by an operator",
            expected_epoch=expected_epoch,
            request_id=request_id,
        )
        return standing.plan

    async def set_drained(
        self, group_id: str, *, drained: bool, validate_only: bool
    ) -> GroupStatus:
        """Take a group out of the routes, or put it back; raises NotFoundError.

        With `validate_only` nothing is published, and the answer is how the group would stand.
        """
        if self.standing().plan.group(group_id) is None:
            raise NotFoundError(f"the plan has no group {group_id}")
        only = frozenset({group_id})
        standing = await self._steward.advance(
            lambda intent: replace(
                intent, drained=intent.drained | only if drained else intent.drained - only
            ),
            reason=f"{group_id} is {'drained' if drained else 'put back'} by an operator",
            validate_only=validate_only,
        )
        return self._group(group_id, standing)

    def _checked(self, plan: Plan, expected_epoch: int) -> tuple[tuple[str, Phase], ...]:
        """The flips that the plan needs; raises when it cannot be applied."""
        standing = self.standing()
        if expected_epoch and standing.plan.epoch != expected_epoch:
            raise ConflictError(
                f"the current epoch is {standing.plan.epoch}, not {expected_epoch}; "
                "read the plan again"
            )
        if plan.model != self._model:
            raise InvalidArgumentError(
                f"the plan is for {plan.model!r}; this fleet serves {self._model!r}", param="model"
            )
        if not plan.groups:
            raise InvalidArgumentError("the plan has no groups", param="groups")
        self._flips.check_idle()
        return flips_between(self._observer.inventory, standing, plan, self._rules)

    def _with_newest_heartbeat(self, status: GroupStatus) -> GroupStatus:
        newest = self._registry.heartbeat(status.worker) if status.worker else None
        return replace(status, heartbeat=newest) if newest else status
