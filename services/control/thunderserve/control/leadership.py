"""Which replica writes: the one that holds the leader key, and for as long as it holds it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from contextlib import aclosing
from typing import TYPE_CHECKING

from thunderserve.core.errors import NotFoundError, UnavailableError
from thunderserve.runtime.backoff import Backoff
from thunderserve.runtime.store.base import CreatedAt, Put
from thunderserve.runtime.store.mirror import mirror

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from thunderserve.runtime.store.base import Compare, Store, Write

__all__ = ["Leadership"]

_log = logging.getLogger(__name__)


class Leadership:
    """Campaigns for the leader key, holds it by a lease, and campaigns again when it is lost.

    Holding the key as far as we know is not enough to write: between the knowing and the write
    the lease may end. So every write goes through `commit`: the store refuses it when the key was
    created anew since, and this replica leads no more.

    Args:
        store: Where the key is.
        key: The key.
        name: This replica's advertised address; the key's value.
        lease_ttl_s: How long a dead leader is waited for.
        on_change: Called when this replica begins or ceases to lead, or learns who does.
    """

    def __init__(
        self,
        store: Store,
        key: str,
        name: str,
        *,
        lease_ttl_s: float,
        on_change: Callable[[], None] = lambda: None,
    ) -> None:
        self._store = store
        self._key = key
        self._name = name
        self._lease_ttl_s = lease_ttl_s
        self._on_change = on_change
        self._fence: CreatedAt | None = None
        self._leader = ""
        self._lease_id = 0
        self._since_s = 0.0
        self._kept_s = 0.0
        self._ceased = asyncio.Event()

    @property
    def leads(self) -> bool:
        """True while this replica believes to lead: it won, and its lease cannot have ended."""
        return self._fence is not None and _now_s() - self._kept_s < self._lease_ttl_s

    @property
    def leader(self) -> str:
        """Address of the replica that leads, as far as is known; empty for none."""
        return self._leader

    @property
    def led_s(self) -> float:
        """Seconds since the election; 0 for a follower."""
        return _now_s() - self._since_s if self._fence else 0.0

    def fence(self) -> CreatedAt:
        """The comparison that every write carries.

        Raises:
            UnavailableError: This replica does not lead; the message says who does.
        """
        if self._fence is None or not self.leads:
            other = self._leader not in {"", self._name}
            who = f"ask the leader at {self._leader}" if other else "no replica leads now"
            raise UnavailableError(f"this control replica ({self._name}) follows; {who}")
        return self._fence

    async def commit(self, compares: Sequence[Compare], writes: Sequence[Write]) -> int | None:
        """Write as the leader, if every comparison holds as well.

        Returns:
            The revision of the writes, or None when a comparison did not hold.

        Raises:
            UnavailableError: This replica does not lead, or no more: nothing was written. Or the
                store does not answer, and the outcome is unknown.
        """
        fence = self.fence()
        revision = await self._store.commit([fence, *compares], writes)
        if revision is None:
            entry = await self._store.get(self._key)
            if entry is None or entry.create_revision != fence.revision:
                self._cease()
                raise UnavailableError("another control replica leads now; nothing was written")
        return revision

    async def run(self) -> None:
        """Campaign and lead, for ever."""
        backoff = Backoff(first_s=0.05, longest_s=1.0)
        while True:
            try:
                await self.resign()  # a lease that outlived its term would only be waited for
                await self._wait_vacant()
                await self._term(backoff)
            except UnavailableError as error:
                _log.warning("cannot campaign: %s", error)
            finally:
                self._cease()
            await asyncio.sleep(backoff.next_s())

    async def resign(self) -> None:
        """Give the key up, so that another replica need not wait for the lease to end."""
        self._cease()
        if self._lease_id:
            await self._store.revoke_lease(self._lease_id)
            self._lease_id = 0

    async def _wait_vacant(self) -> None:
        async with aclosing(mirror(self._store, self._key)) as mappings:
            async for entries in mappings:
                if self._key not in entries:
                    return
                self._leader = entries[self._key].value.decode()
                self._on_change()

    async def _term(self, backoff: Backoff) -> None:
        asked_s = _now_s()
        self._lease_id = await self._store.grant_lease(self._lease_ttl_s)
        put = Put(self._key, self._name.encode(), self._lease_id)
        won = await self._store.commit([CreatedAt(self._key, 0)], [put])
        if won is None:
            return
        _log.info("this replica (%s) leads", self._name)
        backoff.reset()
        self._leader, self._fence = self._name, CreatedAt(self._key, won)
        self._since_s, self._kept_s = _now_s(), asked_s
        self._ceased.clear()
        self._on_change()
        await self._hold()

    async def _hold(self) -> None:
        """Returns when the lease has ended, or may have."""
        while self.leads:
            with contextlib.suppress(TimeoutError):
                # Not `wait_for`: in Python 3.11 it loses a cancellation that comes with the event.
                async with asyncio.timeout(self._lease_ttl_s / 3):
                    await self._ceased.wait()
                    return
            asked_s = _now_s()
            try:
                await self._store.keep_alive(self._lease_id)
            except NotFoundError:
                return
            except UnavailableError as error:
                _log.warning("leading on, but the lease was not renewed: %s", error)
            else:
                self._kept_s = asked_s

    def _cease(self) -> None:
        if self._fence is not None:
            _log.info("this replica (%s) leads no more", self._name)
            self._fence = None
            self._ceased.set()
            self._on_change()


def _now_s() -> float:
    return asyncio.get_running_loop().time()
