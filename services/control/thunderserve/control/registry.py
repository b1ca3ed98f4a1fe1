"""Members attached to this replica: their leases live while they are heard.

A name belongs to one process until it says goodbye or its lease ends. Replicas do not talk about
it: the record in the store is the one truth, and every write of it is fenced by the record's own
revision. So a replica that froze, or lost the store, cannot overwrite what another one wrote since.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace
from typing import TYPE_CHECKING

from thunderserve.control.records import Keys, member_from_value, member_to_value
from thunderserve.core.errors import (
    ConflictError,
    NotFoundError,
    ThunderServeError,
    UnavailableError,
)
from thunderserve.core.links import changed_materially
from thunderserve.runtime.store.base import ModifiedAt, Put

if TYPE_CHECKING:
    from thunderserve.core.fleet import Heartbeat, Member
    from thunderserve.core.links import LinkMeasurement
    from thunderserve.runtime.store.base import Entry, Store

__all__ = ["MemberSession", "Registry"]

_log = logging.getLogger(__name__)


# A member whose stream broke is back within its first back-offs, or not at all.
RETURN_S = 1.0


class Registry:
    """The open sessions of this replica.

    A member whose stream breaks, as a killed process's does, is given `RETURN_S` to come back, to
    this replica or another, before its lease is ended; one that falls silent has its whole lease.
    """

    def __init__(self, store: Store, keys: Keys, *, lease_ttl_s: float) -> None:
        self._store = store
        self._keys = keys
        self._lease_ttl_s = lease_ttl_s
        self._sessions: dict[str, MemberSession] = {}
        self._lost: asyncio.Queue[tuple[float, MemberSession]] = asyncio.Queue()

    async def run(self) -> None:
        """End the leases of members whose streams broke and who did not come back, for ever."""
        while True:
            due_s, session = await self._lost.get()  # in order: all wait for the same time
            await asyncio.sleep(due_s - _now_s())
            if session.key not in self._sessions:
                await self._end(session)

    async def _end(self, session: MemberSession) -> None:
        # Where the member is at another replica, its record has moved on to another lease.
        try:
            await session.leave()
        except ThunderServeError as error:
            _log.info("the lease of %s ends by itself: %s", session.key, error)

    def lose(self, session: MemberSession) -> None:
        """A session's stream has ended without a word."""
        self.close(session)
        self._lost.put_nowait((_now_s() + RETURN_S, session))

    def open(self, member: Member) -> MemberSession:
        """A session for a member that attached; an older one of that name is closed."""
        key = self._keys.member(member)
        if before := self._sessions.get(key):
            self.close(before)
        session = MemberSession(self._store, key, member, lease_ttl_s=self._lease_ttl_s)
        self._sessions[key] = session
        return session

    def close(self, session: MemberSession) -> None:
        """End a session; its lease ends when nobody renews it."""
        session.close()
        if self._sessions.get(session.key) is session:
            del self._sessions[session.key]

    def heartbeat(self, member: Member) -> Heartbeat | None:
        """What a member attached here said last; the store has only what matters to plans."""
        session = self._sessions.get(self._keys.member(member))
        if session is None or session.member.instance_id != member.instance_id:
            return None
        return session.heartbeat


class MemberSession:
    """One member's record and lease, written in the background.

    The lease is renewed by heartbeats alone, at most three times in its life, and the record is
    written when something in it changed that plans depend on.
    """

    def __init__(self, store: Store, key: str, member: Member, *, lease_ttl_s: float) -> None:
        self.key = key
        self.member = member
        self.heartbeat: Heartbeat | None = None
        self._store = store
        self._lease_ttl_s = lease_ttl_s
        self._lease_id = 0
        self._revision = 0  # of the record as this session wrote it last
        self._written: bytes | None = None
        self._links: tuple[LinkMeasurement, ...] = ()  # as they are recorded
        self._kept_s = 0.0
        self._failing_since_s: float | None = None
        self._over: ConflictError | UnavailableError | None = None
        self._beaten = asyncio.Event()
        self._task = asyncio.create_task(self._keep(), name=f"keep {key}")

    @property
    def unrenewed_s(self) -> float:
        """For how long the store has not taken what was heard; 0 while it does."""
        return 0.0 if self._failing_since_s is None else _now_s() - self._failing_since_s

    def beat(self, heartbeat: Heartbeat) -> None:
        """The member was heard.

        Raises:
            UnavailableError: The lease has ended, or goes on at another replica: attach anew.
            ConflictError: Another process has the name.
        """
        if self._over is not None:
            raise self._over
        self.heartbeat = heartbeat
        self._beaten.set()

    def close(self) -> None:
        """Stop writing."""
        self._task.cancel()

    async def leave(self) -> None:
        """End the member's lease now: it is gone."""
        self.close()
        if self._lease_id:
            await self._store.revoke_lease(self._lease_id)

    async def _keep(self) -> None:
        while True:
            await self._beaten.wait()
            self._beaten.clear()
            try:
                await self._write()
            except (NotFoundError, ConflictError) as error:
                self._over = error if isinstance(error, ConflictError) else self._ended()
                return
            except UnavailableError as error:
                self._failed(error)
            else:
                self._failing_since_s = None

    async def _write(self) -> None:
        assert self.heartbeat is not None  # noqa: S101 - a beat woke us
        now_s = _now_s()
        if changed_materially(self._links, self.heartbeat.links):
            self._links = self.heartbeat.links
        lasting = replace(self.heartbeat, in_flight=0, links=self._links)
        value = member_to_value(self.member, lasting)
        if value != self._written:
            await self._record(value)
            await self._store.keep_alive(self._lease_id)
            self._kept_s = now_s
        elif now_s - self._kept_s >= self._lease_ttl_s / 3:
            await self._store.keep_alive(self._lease_id)
            self._kept_s = now_s

    async def _record(self, value: bytes) -> None:
        """Write the record over its own last state, or over none, or over this process's other."""
        self._lease_id = self._lease_id or await self._store.grant_lease(self._lease_ttl_s)
        put = Put(self.key, value, self._lease_id)
        revision = await self._commit(put, self._revision) if self._revision else None
        if revision is None:
            entry = await self._store.get(self.key)
            self._check_mine(entry)
            revision = await self._commit(put, entry.mod_revision if entry else 0)
        if revision is None:
            raise UnavailableError(f"{self.key} is being written by somebody else, too")
        self._revision, self._written = revision, value

    def _check_mine(self, entry: Entry | None) -> None:
        """Raises where the record may not be written over."""
        if self._revision and (entry is None or entry.lease_id != self._lease_id):
            raise NotFoundError(f"the record of {self.key} under lease {self._lease_id} is gone")
        if entry is None:
            return
        holder, _ = member_from_value(entry.value)
        if holder.instance_id != self.member.instance_id:
            name = self.key.rpartition("/")[2]
            raise ConflictError(
                f"another process at {holder.address} serves as {name} until its lease ends; "
                "stop it, or choose another name"
            )

    def _ended(self) -> UnavailableError:
        return UnavailableError(
            f"the lease of {self.key} has ended, or goes on at another replica; attach anew"
        )

    async def _commit(self, put: Put, revision: int) -> int | None:
        return await self._store.commit([ModifiedAt(self.key, revision)], [put])

    def _failed(self, error: UnavailableError) -> None:
        first = self._failing_since_s is None
        level = logging.WARNING if first else logging.DEBUG
        _log.log(level, "%s is heard, but not recorded: %s", self.key, error)
        if first:
            self._failing_since_s = _now_s()


def _now_s() -> float:
    return asyncio.get_running_loop().time()
