"""Every write of the leader, with the event that says what it was and who asked for it."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING

from thunderserve.control.callers import current_actor
from thunderserve.control.records import Keys, event_from_value, event_to_value
from thunderserve.runtime.store.base import Delete, Put

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from thunderserve.control.leadership import Leadership
    from thunderserve.core.events import Event
    from thunderserve.runtime.store.base import Compare, Store, Write

__all__ = ["REMEMBERED_EVENTS", "Journal"]

REMEMBERED_EVENTS = 1000


class Journal:
    """Commits a write and its event in one transaction: neither is there without the other.

    Events are numbered without gaps, so each one that is written takes the place of one that is
    `REMEMBERED_EVENTS` older.

    Args:
        store: Where events are.
        keys: The fleet's keys.
        leadership: Writes, while this replica leads.
        clock: Seconds since 1970.
    """

    def __init__(
        self, store: Store, keys: Keys, leadership: Leadership, clock: Callable[[], float]
    ) -> None:
        self._store = store
        self._keys = keys
        self._leadership = leadership
        self._clock = clock
        self._lock = asyncio.Lock()
        self._last: int | None = None
        self._term = 0  # the fence under which `_last` was read: only one leader numbers

    async def commit(
        self, compares: Sequence[Compare], writes: Sequence[Write], event: Event
    ) -> int | None:
        """Write as the leader, if every comparison holds as well; see `Leadership.commit`."""
        async with self._lock:
            number = await self._last_number() + 1
            noted = replace(event, number=number, unix_s=self._clock(), actor=current_actor())
            self._last = None  # until the outcome is known
            revision = await self._leadership.commit(
                compares,
                [
                    *writes,
                    Put(self._keys.event(number), event_to_value(noted)),
                    Delete(self._keys.event(max(0, number - REMEMBERED_EVENTS))),
                ],
            )
            self._last = number if revision is not None else number - 1
            return revision

    async def events(self) -> tuple[Event, ...]:
        """What is remembered, newest first."""
        listing = await self._store.list(self._keys.events)
        return tuple(event_from_value(entry.value) for entry in reversed(listing.entries))

    async def _last_number(self) -> int:
        term = self._leadership.fence().revision
        if self._last is None or term != self._term:
            listing = await self._store.list(self._keys.events)
            self._last = max((event_from_value(e.value).number for e in listing.entries), default=0)
            self._term = term
        return self._last
