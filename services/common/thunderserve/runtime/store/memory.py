"""The store in memory: one process, nothing survives it, and the same semantics as etcd."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from thunderserve.core.errors import NotFoundError
from thunderserve.runtime.store.base import (
    Batch,
    Change,
    Compare,
    CreatedAt,
    Entry,
    Listing,
    Put,
    Write,
)

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Sequence

__all__ = ["MemoryStore"]

REMEMBERED_BATCHES = 10_000


@dataclass(slots=True)
class _Lease:
    ttl_s: float
    ends_s: float
    keys: set[str] = field(default_factory=set)


class MemoryStore:
    """Leases end by `clock`; `end_due_leases` is also called by every operation and by a timer.

    Args:
        clock: Seconds that never go back.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._entries: dict[str, Entry] = {}
        self._leases: dict[int, _Lease] = {}
        self._next_lease_id = 1
        self._revision = 1
        self._oldest = 1  # the first revision still remembered
        self._history: deque[Batch] = deque()
        self._changed = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None
        self._closed = False

    async def get(self, key: str) -> Entry | None:
        """See `Store.get`."""
        self.end_due_leases()
        return self._entries.get(key)

    async def list(self, prefix: str) -> Listing:
        """See `Store.list`."""
        self.end_due_leases()
        keys = sorted(key for key in self._entries if key.startswith(prefix))
        return Listing(tuple(self._entries[key] for key in keys), self._revision)

    async def put(self, key: str, value: bytes, lease_id: int = 0) -> int:
        """See `Store.put`."""
        self.end_due_leases()
        return self._write([Put(key, value, lease_id)])

    async def commit(self, compares: Sequence[Compare], writes: Sequence[Write]) -> int | None:
        """See `Store.commit`."""
        self.end_due_leases()
        return self._write(writes) if all(map(self._holds, compares)) else None

    async def watch(self, prefix: str, after_revision: int) -> AsyncGenerator[Batch, None]:
        """See `Store.watch`."""
        seen = after_revision
        while not self._closed and seen + 1 >= self._oldest:
            changed = self._changed
            for batch in [batch for batch in self._history if batch.revision > seen]:
                seen = batch.revision
                if changes := tuple(c for c in batch.changes if c.key.startswith(prefix)):
                    yield Batch(changes, batch.revision)
            if changed is self._changed:
                await changed.wait()

    async def grant_lease(self, ttl_s: float) -> int:
        """See `Store.grant_lease`."""
        lease_id, self._next_lease_id = self._next_lease_id, self._next_lease_id + 1
        self._leases[lease_id] = _Lease(ttl_s, self._clock() + ttl_s)
        self._set_timer()
        return lease_id

    async def keep_alive(self, lease_id: int) -> None:
        """See `Store.keep_alive`."""
        self.end_due_leases()
        lease = self._lease(lease_id)
        lease.ends_s = self._clock() + lease.ttl_s

    async def revoke_lease(self, lease_id: int) -> None:
        """See `Store.revoke_lease`."""
        self.end_due_leases()
        if lease_id in self._leases:
            self._end_lease(lease_id)

    async def compact(self, revision: int) -> None:
        """See `Store.compact`."""
        self._oldest = max(self._oldest, min(revision, self._revision))
        while self._history and self._history[0].revision < self._oldest:
            self._history.popleft()
        self._wake()

    async def close(self) -> None:
        """See `Store.close`."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        self._wake()

    def end_due_leases(self) -> None:
        """End the leases whose time is over."""
        now = self._clock()
        for lease_id in [i for i, lease in self._leases.items() if lease.ends_s <= now]:
            self._end_lease(lease_id)

    def _holds(self, compare: Compare) -> bool:
        entry = self._entries.get(compare.key)
        if entry is None:
            return compare.revision == 0
        created = isinstance(compare, CreatedAt)
        return compare.revision == (entry.create_revision if created else entry.mod_revision)

    def _write(self, writes: Sequence[Write]) -> int:
        for write in writes:
            if isinstance(write, Put) and write.lease_id:
                self._lease(write.lease_id)
        revision = self._revision + 1
        changes = [change for write in writes if (change := self._apply(write, revision))]
        if changes:
            self._remember(Batch(tuple(changes), revision))
        return self._revision

    def _apply(self, write: Write, revision: int) -> Change | None:
        before = self._entries.get(write.key)
        if before is not None and before.lease_id in self._leases:
            self._leases[before.lease_id].keys.discard(write.key)
        if isinstance(write, Put):
            created = revision if before is None else before.create_revision
            entry = Entry(write.key, write.value, created, revision, write.lease_id)
            self._entries[write.key] = entry
            if write.lease_id:
                self._leases[write.lease_id].keys.add(write.key)
            return Change(write.key, entry)
        return None if self._entries.pop(write.key, None) is None else Change(write.key, None)

    def _remember(self, batch: Batch) -> None:
        self._revision = batch.revision
        self._history.append(batch)
        if len(self._history) > REMEMBERED_BATCHES:
            self._oldest = self._history.popleft().revision + 1
        self._wake()

    def _wake(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    def _lease(self, lease_id: int) -> _Lease:
        if lease_id not in self._leases:
            raise NotFoundError(f"lease {lease_id} has ended; grant a new one")
        return self._leases[lease_id]

    def _end_lease(self, lease_id: int) -> None:
        lease = self._leases.pop(lease_id)
        gone = [key for key in sorted(lease.keys) if self._entries.pop(key, None)]
        if gone:
            self._remember(Batch(tuple(Change(key, None) for key in gone), self._revision + 1))

    def _set_timer(self) -> None:
        """A lease ends on time also when nobody asks the store anything."""
        if self._timer is not None:
            self._timer.cancel()
        if not self._leases or self._closed:
            return
        next_s = min(lease.ends_s for lease in self._leases.values()) - self._clock()
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(max(next_s, 0.01), self._on_timer)

    def _on_timer(self) -> None:
        self.end_due_leases()
        self._set_timer()
