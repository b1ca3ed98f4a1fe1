"""Numbered plans, written once, by the leader alone."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from thunderserve.control.records import (
    Keys,
    plan_from_value,
    plan_to_value,
    request_from_value,
    request_to_value,
    standing_to_value,
)
from thunderserve.control.standing import Standing
from thunderserve.core.errors import ConflictError, NotFoundError
from thunderserve.core.events import Event, EventKind
from thunderserve.runtime.store.base import Delete, ModifiedAt, Put, Write

if TYPE_CHECKING:
    from collections.abc import Callable

    from thunderserve.control.journal import Journal
    from thunderserve.control.observer import Observer
    from thunderserve.core.plan import Plan
    from thunderserve.runtime.store.base import Store

__all__ = ["Publisher"]

REMEMBERED_PLANS = 1000
REQUEST_MEMORY_S = 24 * 3600.0


class Publisher:
    """Writes plans in transactions fenced by the leader key and by the plan that they replace.

    Args:
        store: Where plans are.
        keys: The fleet's keys.
        observer: Knows what is published, and is told of what this writes.
        journal: Writes, while this replica leads.
        clock: Seconds since 1970.
    """

    def __init__(
        self,
        store: Store,
        keys: Keys,
        observer: Observer,
        journal: Journal,
        clock: Callable[[], float],
    ) -> None:
        self._store = store
        self._keys = keys
        self._observer = observer
        self._journal = journal
        self._clock = clock

    async def publish(self, proposed: Standing, request_id: str = "") -> Standing:
        """Publish in place of what the observer knows.

        Args:
            proposed: Its plan has its epoch already, above that of the plan it replaces.
            request_id: Remembered for a day with the plan's epoch, unless empty.

        Raises:
            UnavailableError: This replica does not lead, or the store does not answer.
            ConflictError: Something else was published meanwhile; the observer knows it now.
        """
        plan = replace(proposed.plan, created_unix_s=self._clock())
        standing = Standing(proposed.view._replace(plan=plan), proposed.intent)
        value = standing_to_value(standing)
        replaced = ModifiedAt(self._keys.current, self._observer.revision)
        writes: list[Write] = [
            Put(self._keys.current, value),
            Put(self._keys.plan(plan.epoch), plan_to_value(plan)),
            Delete(self._keys.plan(max(0, plan.epoch - REMEMBERED_PLANS))),
        ]
        if request_id:
            lease_id = await self._store.grant_lease(REQUEST_MEMORY_S)
            value_of_request = request_to_value(plan.epoch)
            writes.append(Put(self._keys.request(request_id), value_of_request, lease_id))
        revision = await self._journal.commit(
            [replaced], writes, Event(EventKind.PLAN, str(plan.epoch), plan.reason)
        )
        if revision is None:
            await self._observer.refresh()
            raise ConflictError(f"plan {plan.epoch} was not published: something else was")
        self._observer.accept(value, revision)
        return standing

    async def plan(self, epoch: int) -> Plan:
        """A published plan.

        Raises:
            NotFoundError: There is none of that epoch, or it is too old to be remembered.
        """
        entry = await self._store.get(self._keys.plan(epoch))
        if entry is None:
            raise NotFoundError(f"there is no plan of epoch {epoch}")
        return plan_from_value(entry.value)

    async def plans(self) -> tuple[Plan, ...]:
        """Published plans, newest first."""
        listing = await self._store.list(self._keys.history)
        return tuple(plan_from_value(entry.value) for entry in reversed(listing.entries))

    async def plan_of_request(self, request_id: str) -> Plan | None:
        """The plan that a request published, if it is remembered."""
        entry = await self._store.get(self._keys.request(request_id)) if request_id else None
        return None if entry is None else await self.plan(request_from_value(entry.value))
