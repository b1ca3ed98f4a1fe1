"""Brings the plan in line with who is alive and what is wanted, one change at a time."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace
from typing import TYPE_CHECKING

from thunderserve.control.reconciler import Rules, reconcile
from thunderserve.control.standing import Intent, Standing
from thunderserve.core.errors import ConflictError, PreconditionError, ThunderServeError

if TYPE_CHECKING:
    from collections.abc import Callable

    from thunderserve.control.leadership import Leadership
    from thunderserve.control.observer import Observer
    from thunderserve.control.publisher import Publisher

__all__ = ["Steward"]

_log = logging.getLogger(__name__)

RETRY_S = 0.5


class Steward:
    """The one place that publishes: by itself when members change, and when it is asked to.

    Args:
        observer: What is known.
        publisher: Writes plans.
        leadership: Only the leader acts.
        rules: For the reconciler.
        settle_s: How long after its election a leader waits for members to attach before it
            takes those that it does not see for lost.
    """

    def __init__(
        self,
        observer: Observer,
        publisher: Publisher,
        leadership: Leadership,
        rules: Rules,
        *,
        settle_s: float,
    ) -> None:
        self._observer = observer
        self._publisher = publisher
        self._leadership = leadership
        self._rules = rules
        self._settle_s = settle_s
        self._seen: set[str] = set()
        self._lock = asyncio.Lock()

    async def run(self) -> None:
        """Keep the plan right, for ever."""
        async for _ in self._observer.changes():
            if self._leadership.leads and not await self._try_advance():
                asyncio.get_running_loop().call_later(RETRY_S, self._observer.nudge)

    async def advance(
        self,
        change: Callable[[Intent], Intent] = lambda intent: intent,
        *,
        reason: str = "",
        expected_epoch: int = 0,
        request_id: str = "",
        restored: Standing | None = None,
        validate_only: bool = False,
    ) -> Standing:
        """Change what is wanted and publish what follows from it.

        Args:
            change: The intent that stands to the one that is wanted.
            reason: Why, for people.
            expected_epoch: Act only if this is the current epoch; 0 acts on any.
            request_id: Remembered with the plan that is published, unless empty.
            restored: Go on from this instead of from what stands, whatever its epoch.
            validate_only: Publish nothing.

        Returns:
            What stands now, or would: the same as before when nothing had to change.

        Raises:
            UnavailableError: This replica does not lead, or the store does not answer.
            ConflictError: The epoch is another one, or somebody else published meanwhile.
            PreconditionError: There is no plan yet.
        """
        async with self._lock:
            self._leadership.fence()
            standing = self._observer.standing
            epoch = standing.plan.epoch if standing else 0
            if expected_epoch and epoch != expected_epoch:
                raise ConflictError(
                    f"the current epoch is {epoch}, not {expected_epoch}; read the plan again"
                )
            base = standing if restored is None else _raised(restored, epoch)
            proposed = await asyncio.to_thread(
                reconcile,
                self._observer.inventory,
                base,
                change(base.intent if base else Intent()),
                self._rules,
                awaited=self._awaited(),
                reason=reason,
                again=restored is not None or self._observer.set_back,
            )
            if validate_only and (would := proposed or standing):
                return would
            if proposed is not None:
                return await self._published(proposed, request_id)
            if standing is None:
                raise PreconditionError("there is no plan yet: too few workers have attached")
            if reason:
                await self._confirm()
            return standing

    async def _confirm(self) -> None:
        """Nothing is to be written, so no fence says whether what we know is still so: read it."""
        known = self._observer.revision
        await self._observer.refresh()
        self._leadership.fence()
        if self._observer.revision != known:
            raise ConflictError("something else was published meanwhile; try again")

    def _awaited(self) -> frozenset[str]:
        """Groups that were never seen attached, while there is time for them to come back."""
        standing, inventory = self._observer.standing, self._observer.inventory
        self._seen |= {live.worker.group_id for live in inventory.workers}
        if standing is None or self._leadership.led_s >= self._settle_s:
            return frozenset()
        return frozenset(worker.group_id for worker in standing.view.workers) - self._seen

    async def _published(self, proposed: Standing, request_id: str) -> Standing:
        standing = await self._publisher.publish(proposed, request_id)
        _log.info("published plan %d: %s", standing.plan.epoch, standing.plan.reason)
        return standing

    async def _try_advance(self) -> bool:
        """One change; False when it is to be tried again."""
        try:
            await self.advance()
        except PreconditionError:
            return True
        except ThunderServeError as error:
            _log.warning("the plan was not brought in line: %s", error)
            return False
        return not self._awaited()


def _raised(standing: Standing, epoch: int) -> Standing:
    """The same, at least of that epoch."""
    plan = replace(standing.plan, epoch=max(epoch, standing.plan.epoch))
    return replace(standing, view=standing.view._replace(plan=plan))
