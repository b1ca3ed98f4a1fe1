"""What the control plane asks of a store; the semantics are etcd's.

Every write that changes something raises the store's revision by one. An entry remembers the
revision that created it and the one that changed it last; transactions compare with these.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence

__all__ = [
    "Batch",
    "Change",
    "Compare",
    "CreatedAt",
    "Delete",
    "Entry",
    "Listing",
    "ModifiedAt",
    "Put",
    "Store",
    "Write",
]


@dataclass(frozen=True, slots=True)
class Entry:
    """A key and its value; `lease_id` is 0 for an entry that no lease ends."""

    key: str
    value: bytes
    create_revision: int
    mod_revision: int
    lease_id: int = 0


@dataclass(frozen=True, slots=True)
class Listing:
    """The entries of a prefix, by key, as they were at `revision`."""

    entries: tuple[Entry, ...]
    revision: int


@dataclass(frozen=True, slots=True)
class Change:
    """A key was put, or it is gone: deleted, or its lease ended (`entry` is None)."""

    key: str
    entry: Entry | None


@dataclass(frozen=True, slots=True)
class Batch:
    """The changes of one or more revisions, in order, up to and including `revision`."""

    changes: tuple[Change, ...]
    revision: int


@dataclass(frozen=True, slots=True)
class CreatedAt:
    """Holds when the key was created at `revision`; 0: there is no such key."""

    key: str
    revision: int


@dataclass(frozen=True, slots=True)
class ModifiedAt:
    """Holds when the key was last changed at `revision`; 0: there is no such key."""

    key: str
    revision: int


@dataclass(frozen=True, slots=True)
class Put:
    """Set a key; the entry ends with the lease, or with none when `lease_id` is 0."""

    key: str
    value: bytes
    lease_id: int = 0


@dataclass(frozen=True, slots=True)
class Delete:
    """Remove a key; nothing happens when there is none."""

    key: str


Compare = CreatedAt | ModifiedAt
Write = Put | Delete


class Store(Protocol):
    """Reads, fenced writes, leases and watches; every call may raise UnavailableError."""

    async def get(self, key: str) -> Entry | None:
        """The entry of a key, as the majority knows it."""

    async def list(self, prefix: str) -> Listing:
        """The entries whose keys start with `prefix`."""

    async def put(self, key: str, value: bytes, lease_id: int = 0) -> int:
        """Set a key without condition.

        Returns:
            The revision of the write.

        Raises:
            NotFoundError: There is no such lease.
        """

    async def commit(self, compares: Sequence[Compare], writes: Sequence[Write]) -> int | None:
        """Do all writes if every comparison holds, else none.

        After an UnavailableError the outcome is unknown: read before trying again.

        Returns:
            The revision of the writes, or None when a comparison did not hold.

        Raises:
            NotFoundError: There is no such lease.
        """

    def watch(self, prefix: str, after_revision: int) -> AsyncGenerator[Batch, None]:
        """Every change of a prefix after a revision; survives any outage of the store.

        The iterator ends when the store no longer remembers what follows the revision, or was set
        back to before it: list again and watch from there. A batch without changes says that an
        outage is over, in which the store may have been set back and have caught up since: what
        was read before it may never have been. List again then, too. `mirror` does all of that.
        """

    async def grant_lease(self, ttl_s: float) -> int:
        """A new lease's id.

        It ends `ttl_s` (rounded up to what the store can) after the last `keep_alive`, and takes
        its entries along.
        """

    async def keep_alive(self, lease_id: int) -> None:
        """Start the lease's time anew.

        Raises:
            NotFoundError: It has ended.
        """

    async def revoke_lease(self, lease_id: int) -> None:
        """End a lease now; nothing happens when it has ended."""

    async def compact(self, revision: int) -> None:
        """Forget what was before `revision`; current entries stay."""

    async def close(self) -> None:
        """Free everything; watches end."""
