"""What a replica knows: members and the standing plan, as the store has them."""

from __future__ import annotations

import asyncio
import logging
from contextlib import aclosing, suppress
from typing import TYPE_CHECKING

from thunderserve.control.inventory import Inventory, inventory_of
from thunderserve.control.records import Keys, member_from_value, standing_from_value
from thunderserve.core.errors import InvalidArgumentError, UnavailableError
from thunderserve.runtime.store.mirror import mirror

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Iterable

    from thunderserve.control.standing import Standing
    from thunderserve.core.fleet import Heartbeat, Member
    from thunderserve.runtime.store.base import Entry, Store

__all__ = ["Observer"]

_log = logging.getLogger(__name__)


class Observer:
    """Follows the store; everything here is read, nothing is written.

    What stands is the highest epoch that was ever seen, as for every observer: a store that was set
    back, restored from an old snapshot say, does not take a plan back.
    """

    def __init__(self, store: Store, keys: Keys) -> None:
        self._store = store
        self._keys = keys
        self._inventory = Inventory()
        self._standing: Standing | None = None
        self._revision = 0
        self._set_back = False
        self._changed = asyncio.Event()
        self._loaded = {"members": asyncio.Event(), "plan": asyncio.Event()}

    @property
    def inventory(self) -> Inventory:
        """Everybody whose lease lives."""
        return self._inventory

    @property
    def standing(self) -> Standing | None:
        """What is published; None before the first plan."""
        return self._standing

    @property
    def revision(self) -> int:
        """The store's revision of what is published; 0 before the first plan."""
        return self._revision

    @property
    def set_back(self) -> bool:
        """True while the store holds an older plan than was seen: the leader is to publish anew."""
        return self._set_back

    async def run(self) -> None:
        """Follow the store, for ever.

        Raises:
            PreconditionError: What is stored was written in a newer format.
        """
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._follow_members())
            tasks.create_task(self._follow_plan())

    async def wait_loaded(self) -> None:
        """Wait until members and plan were read once."""
        for loaded in self._loaded.values():
            await loaded.wait()

    async def refresh(self) -> None:
        """Read what is published now, without waiting for the watch."""
        known = self._revision
        entry = await self._store.get(self._keys.current)
        if entry is None:
            self._take(None, 0)
        elif entry.mod_revision < known:
            self._take(entry.value, entry.mod_revision)
        else:
            self.accept(entry.value, entry.mod_revision)

    def accept(self, value: bytes, revision: int) -> None:
        """Take a published value; an older one than is known is ignored."""
        if revision > self._revision:
            self._take(value, revision)

    def _take(self, value: bytes | None, revision: int) -> None:
        stored = None if value is None else standing_from_value(value)
        self._revision = revision
        known_epoch = self._standing.plan.epoch if self._standing else 0
        stored_epoch = stored.plan.epoch if stored else 0
        self._set_back = stored_epoch < known_epoch
        if self._set_back:
            _log.warning("the store was set back from plan %d to %d", known_epoch, stored_epoch)
        elif stored is not None:
            self._standing = stored
        self.nudge()

    async def changes(self) -> AsyncGenerator[None, None]:
        """Now, and whenever something changed since the last time."""
        while True:
            changed = self._changed
            yield
            await changed.wait()

    async def wait_until(self, holds: Callable[[], bool], timeout_s: float) -> bool:
        """Wait for a condition on what is observed; False when it does not hold in time."""
        try:
            async with asyncio.timeout(timeout_s):
                async for _ in self.changes():
                    if holds():
                        return True
        except TimeoutError:
            pass
        return holds()

    def nudge(self) -> None:
        """Wake everybody who waits for changes."""
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    async def _follow_members(self) -> None:
        async with aclosing(mirror(self._store, self._keys.members)) as mappings:
            async for entries in mappings:
                self._inventory = inventory_of(_members(entries.values()))
                self._loaded["members"].set()
                self.nudge()

    async def _follow_plan(self) -> None:
        key = self._keys.current
        async with aclosing(mirror(self._store, key)) as mappings:
            async for entries in mappings:
                entry = entries.get(key)
                if entry is not None and entry.mod_revision >= self._revision:
                    self.accept(entry.value, entry.mod_revision)
                elif self._revision:
                    # Late, or the store was set back; only reading it once more tells.
                    with suppress(UnavailableError):
                        await self.refresh()
                self._loaded["plan"].set()


def _members(entries: Iterable[Entry]) -> list[tuple[Member, Heartbeat]]:
    members = []
    for entry in entries:
        try:
            members.append(member_from_value(entry.value))
        except (InvalidArgumentError, ValueError, KeyError) as error:
            _log.warning("%s is not a member's record: %s", entry.key, error)
    return members
