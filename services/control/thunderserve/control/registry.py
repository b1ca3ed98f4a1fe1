"""Members attached to this replica: their leases live while they are heard."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace
from typing import TYPE_CHECKING

from thunderserve.control.records import Keys, member_to_value
from thunderserve.core.errors import ConflictError, NotFoundError, UnavailableError
from thunderserve.core.links import changed_materially

if TYPE_CHECKING:
    from thunderserve.core.fleet import Heartbeat, Member
    from thunderserve.core.links import LinkMeasurement
    from thunderserve.runtime.store.base import Store

__all__ = ["MemberSession", "Registry"]

_log = logging.getLogger(__name__)


class Registry:
    """The open sessions of this replica."""

    def __init__(self, store: Store, keys: Keys, *, lease_ttl_s: float) -> None:
        self._store = store
        self._keys = keys
        self._lease_ttl_s = lease_ttl_s
        self._sessions: dict[str, MemberSession] = {}

    def open(self, member: Member) -> MemberSession:
        """A session for a member that attached; an older one of the same process is closed.

        Raises:
            ConflictError: Another process of that name is attached.
        """
        key = self._keys.member(member)
        if before := self._sessions.get(key):
            if before.member.instance_id != member.instance_id:
                raise ConflictError(
                    f"another process serves as {key.rpartition('/')[2]} at "
                    f"{before.member.address}; stop it, or choose another name"
                )
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
        self._written: bytes | None = None
        self._links: tuple[LinkMeasurement, ...] = ()  # as they are recorded
        self._kept_s = 0.0
        self._beaten = asyncio.Event()
        self._task = asyncio.create_task(self._keep(), name=f"keep {key}")

    def beat(self, heartbeat: Heartbeat) -> None:
        """The member was heard."""
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
        recorded = True
        while True:
            await self._beaten.wait()
            self._beaten.clear()
            try:
                await self._write()
            except NotFoundError:
                self._lease_id = 0
                self._beaten.set()
            except UnavailableError as error:
                level = logging.WARNING if recorded else logging.DEBUG
                _log.log(level, "%s is heard, but not recorded: %s", self.key, error)
                recorded = False
            else:
                recorded = True

    async def _write(self) -> None:
        assert self.heartbeat is not None  # noqa: S101 - a beat woke us
        now_s = asyncio.get_running_loop().time()
        if changed_materially(self._links, self.heartbeat.links):
            self._links = self.heartbeat.links
        lasting = replace(self.heartbeat, in_flight=0, links=self._links)
        value = member_to_value(self.member, lasting)
        if not self._lease_id:
            self._lease_id, self._written = await self._store.grant_lease(self._lease_ttl_s), None
        if value != self._written:
            await self._store.put(self.key, value, self._lease_id)
            self._written = value
            await self._store.keep_alive(self._lease_id)
            self._kept_s = now_s
        elif now_s - self._kept_s >= self._lease_ttl_s / 3:
            await self._store.keep_alive(self._lease_id)
            self._kept_s = now_s
