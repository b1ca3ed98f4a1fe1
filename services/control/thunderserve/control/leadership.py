"""Which replica writes: the one that holds the leader key, and for as long as it holds it."""

from __future__ import annotations

import asyncio
import logging
from contextlib import aclosing
from typing import TYPE_CHECKING

from thunderserve.core.errors import NotFoundError, UnavailableError
from thunderserve.runtime.backoff import Backoff
from thunderserve.runtime.store.base import CreatedAt, Put
from thunderserve.runtime.store.mirror import mirror

if TYPE_CHECKING:
    from collections.abc import Callable

    from thunderserve.runtime.store.base import Store

__all__ = ["Leadership"]

_log = logging.getLogger(__name__)


class Leadership:
    """Campaigns for the leader key, holds it by a lease, and campaigns again when it is lost.

    Holding the key as far as we know is not enough to write: between the knowing and the write
    the lease may end. So every write carries `fence`, and the store refuses it when the key was
    created anew since.

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

    @property
    def leads(self) -> bool:
        """True while this replica believes to lead."""
        return self._fence is not None

    @property
    def leader(self) -> str:
        """Address of the replica that leads, as far as is known; empty for none."""
        return self._leader

    @property
    def led_s(self) -> float:
        """Seconds since the election; 0 for a follower."""
        return asyncio.get_running_loop().time() - self._since_s if self._fence else 0.0

    def fence(self) -> CreatedAt:
        """The comparison that every write must carry.

        Raises:
            UnavailableError: Another replica leads; the message names it.
        """
        if self._fence is None:
            who = f"ask the leader at {self._leader}" if self._leader else "no replica leads now"
            raise UnavailableError(f"this control replica ({self._name}) follows; {who}")
        return self._fence

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
        self._lease_id = await self._store.grant_lease(self._lease_ttl_s)
        put = Put(self._key, self._name.encode(), self._lease_id)
        won = await self._store.commit([CreatedAt(self._key, 0)], [put])
        if won is None:
            return
        _log.info("this replica (%s) leads", self._name)
        backoff.reset()
        self._leader, self._fence = self._name, CreatedAt(self._key, won)
        self._since_s = asyncio.get_running_loop().time()
        self._on_change()
        await self._hold()

    async def _hold(self) -> None:
        """Returns when the lease may have ended."""
        loop = asyncio.get_running_loop()
        kept_s = loop.time()
        while loop.time() - kept_s < self._lease_ttl_s:
            await asyncio.sleep(self._lease_ttl_s / 3)
            asked_s = loop.time()
            try:
                await self._store.keep_alive(self._lease_id)
            except NotFoundError:
                return
            except UnavailableError as error:
                _log.warning("leading on, but the lease was not renewed: %s", error)
            else:
                kept_s = asked_s

    def _cease(self) -> None:
        if self._fence is not None:
            _log.info("this replica (%s) leads no more", self._name)
            self._fence = None
            self._on_change()
