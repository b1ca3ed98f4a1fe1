"""The legs that a host runs: counted, and sent elsewhere when they outlive a drain."""

from __future__ import annotations

import asyncio
from contextlib import aclosing, contextmanager
from typing import TYPE_CHECKING, TypeVar

from thunderserve.core.errors import UnavailableError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterator

__all__ = ["Leg", "Legs"]

_Item = TypeVar("_Item")


class Leg:
    """One leg in flight."""

    def __init__(self) -> None:
        self._reason = ""
        self._waiting: asyncio.Task[object] | None = None

    async def follow(self, items: AsyncGenerator[_Item, None]) -> AsyncGenerator[_Item, None]:
        """The engine's items, until they end or the leg is sent away.

        Raises:
            UnavailableError: It was sent away; the router goes on with it elsewhere.
        """
        async with aclosing(items):
            while True:
                try:
                    item = await self._next(items)
                except StopAsyncIteration:
                    return
                yield item

    def send_away(self, reason: str) -> None:
        """End the leg, whatever it waits for."""
        self._reason = reason
        if self._waiting is not None:
            self._waiting.cancel()

    async def _next(self, items: AsyncGenerator[_Item, None]) -> _Item:
        self._check()
        # The task that waits for the engine, to be woken by `send_away`; no task for every token.
        task = self._waiting = asyncio.current_task()
        try:
            return await anext(items)
        except asyncio.CancelledError:
            if task is not None and self._reason and not task.uncancel():
                self._check()
            raise
        finally:
            self._waiting = None

    def _check(self) -> None:
        if self._reason:
            raise UnavailableError(self._reason)


class Legs:
    """All legs in flight."""

    def __init__(self) -> None:
        self._running: set[Leg] = set()
        self._idle = asyncio.Event()
        self._idle.set()

    def __len__(self) -> int:
        """How many have not ended."""
        return len(self._running)

    @contextmanager
    def enter(self) -> Iterator[Leg]:
        """A leg that is in flight until the block ends."""
        leg = Leg()
        self._running.add(leg)
        self._idle.clear()
        try:
            yield leg
        finally:
            self._running.discard(leg)
            if not self._running:
                self._idle.set()

    async def drain(self, timeout_s: float) -> bool:
        """Wait until none is in flight; False when some still are after `timeout_s`."""
        try:
            await asyncio.wait_for(self._idle.wait(), timeout_s)
        except TimeoutError:
            return False
        return True

    def send_away(self, reason: str) -> None:
        """End all of them, so that routers go on with them elsewhere."""
        for leg in tuple(self._running):
            leg.send_away(reason)
