"""A port between engines of one process."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, TypeVar

from thunderserve.core.errors import TransferError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from thunderserve.core.kv import KvLayout
    from thunderserve.core.plan import Phase

__all__ = ["MemoryExchange", "MemoryKvPort"]

_Result = TypeVar("_Result")
_Cache = tuple["npt.NDArray[np.uint16]", bytes]


class MemoryExchange:
    """Where ports meet: one place per room."""

    def __init__(self) -> None:
        self._sent: dict[int, asyncio.Future[_Cache]] = {}
        self._taken: dict[int, asyncio.Future[None]] = {}

    def sent(self, room: int) -> asyncio.Future[_Cache]:
        """Resolved by the sender."""
        return self._sent.setdefault(room, asyncio.get_running_loop().create_future())

    def taken(self, room: int) -> asyncio.Future[None]:
        """Resolved by the receiver."""
        return self._taken.setdefault(room, asyncio.get_running_loop().create_future())

    def abort(self, room: int, reason: str) -> None:
        """Fail whoever waits for the room, now or later."""
        for place in (self.sent(room), self.taken(room)):
            if not place.done():
                place.set_exception(TransferError(f"room {room}: {reason}"))
                place.exception()  # the other side may never look


class MemoryKvPort:
    """Hands arrays over without copying them.

    Args:
        exchange: Shared by all ports of the fleet.
        timeout_s: For the other side to come.
    """

    def __init__(self, exchange: MemoryExchange, *, timeout_s: float = 5.0) -> None:
        self._exchange = exchange
        self._timeout_s = timeout_s

    async def open(self, phase: Phase, layout: KvLayout) -> None:
        """Nothing to open."""

    async def send(self, room: int, values: npt.NDArray[np.uint16], aux: bytes) -> None:
        """Leave the cache in the exchange and wait until it was taken."""
        sent = self._exchange.sent(room)
        if not sent.done():
            sent.set_result((values, aux))
        await self._wait(room, self._exchange.taken(room))

    async def receive(
        self, room: int, peer_address: str, page_count: int
    ) -> tuple[npt.NDArray[np.uint16], bytes]:
        """Wait for the cache in the exchange."""
        del peer_address
        values, aux = await self._wait(room, self._exchange.sent(room))
        if values.shape[2] != page_count:
            self._exchange.abort(room, f"{values.shape[2]} pages came, not {page_count}")
        taken = self._exchange.taken(room)
        if not taken.done():
            taken.set_result(None)
        await taken
        return values, aux

    async def close(self) -> None:
        """Nothing to close."""

    async def _wait(self, room: int, place: asyncio.Future[_Result]) -> _Result:
        try:
            return await asyncio.wait_for(asyncio.shield(place), self._timeout_s)
        except TimeoutError:
            self._exchange.abort(room, f"nobody came within {self._timeout_s} s")
            raise TransferError(f"room {room}: nobody came within {self._timeout_s} s") from None
        except asyncio.CancelledError:
            self._exchange.abort(room, "the other side was cancelled")
            raise
