"""A plan that needs flips, from the word to its end: one intent, whoever leads meanwhile."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace
from typing import TYPE_CHECKING

from thunderserve.control.changes import FlipRules, flips_between
from thunderserve.core.errors import (
    ConflictError,
    PreconditionError,
    ThunderServeError,
    UnavailableError,
)
from thunderserve.core.fleet import FlipStep

if TYPE_CHECKING:
    from collections.abc import Sequence

    from thunderserve.control.flips import Flips
    from thunderserve.control.leadership import Leadership
    from thunderserve.control.observer import Observer
    from thunderserve.control.standing import Standing
    from thunderserve.control.steward import Steward
    from thunderserve.core.plan import Phase, Plan

__all__ = ["DEFAULT_DRAIN_TIMEOUT_S", "Pursuit"]

_log = logging.getLogger(__name__)

DEFAULT_DRAIN_TIMEOUT_S = 30.0
RETRY_S = 0.5


class Pursuit:
    """Applies plans, flip by flip, one at a time.

    A plan that needs flips is published as what is pursued before the first of them. Where the
    leader is lost, the next one works out which flips are left and goes on; where a flip is rolled
    back, the plan is given up, what has flipped stays, and routes are solved for that.

    Args:
        observer: What is known.
        steward: Publishes.
        flips: Changes phases.
        leadership: Only the leader pursues.
        rules: For the order of flips.
        settle_s: How long after its election a leader waits for the plan's workers to attach.
    """

    def __init__(
        self,
        observer: Observer,
        steward: Steward,
        flips: Flips,
        leadership: Leadership,
        rules: FlipRules,
        *,
        settle_s: float,
    ) -> None:
        self._observer = observer
        self._steward = steward
        self._flips = flips
        self._leadership = leadership
        self._rules = rules
        self._settle_s = settle_s
        self._task: asyncio.Task[Standing] | None = None

    def check_idle(self) -> None:
        """Raises PreconditionError while a plan is being applied."""
        standing = self._observer.standing
        under_way = self._task is not None and not self._task.done()
        if under_way or (standing is not None and standing.intent.pursued is not None):
            raise PreconditionError("a plan is being applied; try again after it")

    async def apply(
        self,
        plan: Plan,
        flips: Sequence[tuple[str, Phase]],
        *,
        reason: str,
        expected_epoch: int,
        request_id: str,
    ) -> Standing:
        """Make the flips, then publish the plan; a caller that goes away does not stop it."""
        task = self._task = asyncio.create_task(
            self._applied(
                plan, flips, reason=reason, expected_epoch=expected_epoch, request_id=request_id
            )
        )
        return await asyncio.shield(task)

    async def run(self) -> None:
        """Go on with what a leader before left, for ever."""
        async for _ in self._observer.changes():
            standing = self._observer.standing
            idle = self._task is None or self._task.done()
            if idle and standing and standing.intent.pursued and self._flips.settled:
                await self._try_resume(standing.intent.pursued)

    async def _try_resume(self, plan: Plan) -> None:
        attached = all(self._observer.inventory.worker(group.id) for group in plan.groups)
        try:
            if attached or self._leadership.led_s >= self._settle_s:
                self._task = asyncio.create_task(self._resumed(plan))
                await asyncio.shield(self._task)
                return
        except ThunderServeError as error:
            _log.warning("the plan that was being applied waits: %s", error)
        asyncio.get_running_loop().call_later(RETRY_S, self._observer.nudge)

    async def _resumed(self, plan: Plan) -> Standing:
        standing = self._observer.standing
        assert standing is not None  # noqa: S101 - `run` saw to it
        try:
            flips = await asyncio.to_thread(
                flips_between, self._observer.inventory, standing, plan, self._rules
            )
        except ThunderServeError as error:
            return await self._given_up(str(error))
        return await self._flipped(plan, flips, reason="applied after control restarted")

    async def _applied(
        self,
        plan: Plan,
        flips: Sequence[tuple[str, Phase]],
        *,
        reason: str,
        expected_epoch: int,
        request_id: str,
    ) -> Standing:
        if flips:
            await self._steward.advance(
                lambda intent: replace(intent, pursued=plan),
                reason=f"{reason}: {', '.join(group for group, _ in flips)} to flip first",
                expected_epoch=expected_epoch,
            )
            expected_epoch = 0
        return await self._flipped(
            plan, flips, reason=reason, expected_epoch=expected_epoch, request_id=request_id
        )

    async def _flipped(
        self,
        plan: Plan,
        flips: Sequence[tuple[str, Phase]],
        *,
        reason: str,
        expected_epoch: int = 0,
        request_id: str = "",
    ) -> Standing:
        for group_id, phase in flips:
            try:
                await self._flip(group_id, phase)
            except (ConflictError, UnavailableError):
                raise  # this replica leads no more: the next one goes on
            except ThunderServeError as error:
                await self._given_up(str(error))
                raise
        return await self._steward.advance(
            lambda intent: replace(intent, applied=plan, pursued=None),
            reason=reason,
            expected_epoch=expected_epoch,
            request_id=request_id,
        )

    async def _flip(self, group_id: str, phase: Phase) -> None:
        flip = await self._flips.flip(group_id, phase, drain_timeout_s=DEFAULT_DRAIN_TIMEOUT_S)
        if flip.step is FlipStep.ROLLED_BACK:
            raise PreconditionError(
                f"the plan was not applied: {group_id} did not flip to {phase}: {flip.failure}"
            )

    async def _given_up(self, why: str) -> Standing:
        _log.warning("a plan is given up: %s", why)
        return await self._steward.advance(
            lambda intent: replace(intent, pursued=None), reason=f"a plan was given up: {why}"
        )
