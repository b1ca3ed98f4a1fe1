"""A port between engines of one process."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
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
_MOST_ROOMS = 4096


def _future() -> asyncio.Future[_Result]:
    return asyncio.get_running_loop().create_future()


@dataclass(slots=True)
class _Place:
    """Where the two sides of a room meet."""

    reserved: asyncio.Future[None] = field(default_factory=_future)
    sent: asyncio.Future[_Cache] = field(default_factory=_future)
    taken: asyncio.Future[None] = field(default_factory=_future)

    def abort(self, error: TransferError) -> None:
        """Fail whoever waits, now or later."""
        futures: tuple[asyncio.Future[None] | asyncio.Future[_Cache], ...]
        futures = (self.reserved, self.sent, self.taken)
        for future in futures:
            if not future.done():
                future.set_exception(error)
                future.exception()  # the other side may never look


class MemoryExchange:
    """Where ports meet: one place per room; the oldest are forgotten."""

    def __init__(self) -> None:
        self._places: dict[int, _Place] = {}

    def place(self, room: int) -> _Place:
        """The room's place."""
        if room not in self._places:
            while len(self._places) >= _MOST_ROOMS:
                del self._places[next(iter(self._places))]
            self._places[room] = _Place()
        return self._places[room]

    def abort(self, room: int, reason: str) -> None:
        """Fail whoever waits for the room, now or later."""
        self.place(room).abort(TransferError(f"room {room}: {reason}"))


class MemoryKvPort:
    """Hands arrays over without copying them.

    Args:
        exchange: Shared by all ports of the fleet.
        timeout_s: For the other side to come.
    """

    def __init__(self, exchange: MemoryExchange, *, timeout_s: float = 120.0) -> None:
        self._exchange = exchange
        self._timeout_s = timeout_s
        self._open_rooms: set[int] = set()

    async def open(self, phase: Phase, layout: KvLayout) -> None:
        """Nothing to open."""

    async def wait_reserved(self, room: int) -> None:
        """Wait until the decode side asked for the cache."""
        self._open_rooms.add(room)
        await self._wait(room, self._exchange.place(room).reserved)

    async def send(self, room: int, values: npt.NDArray[np.uint16], aux: bytes) -> None:
        """Leave the cache in the exchange and wait until it was taken."""
        place = self._exchange.place(room)
        if not place.sent.done():
            place.sent.set_result((values, aux))
        await self._wait(room, place.taken)
        self._open_rooms.discard(room)

    async def receive(
        self, room: int, peer_address: str, page_count: int
    ) -> tuple[npt.NDArray[np.uint16], bytes]:
        """Ask for the cache and wait for it in the exchange."""
        del peer_address
        self._open_rooms.add(room)
        place = self._exchange.place(room)
        if not place.reserved.done():
            place.reserved.set_result(None)
        values, aux = await self._wait(room, place.sent)
        if values.shape[2] != page_count:
            self.abort(room, f"{values.shape[2]} pages came, not {page_count}")
        if not place.taken.done():
            place.taken.set_result(None)
        await place.taken
        self._open_rooms.discard(room)
        return values, aux

    def abort(self, room: int, reason: str) -> None:
        """End a room on both sides."""
        self._open_rooms.discard(room)
        self._exchange.abort(room, reason)

    async def close(self) -> None:
        """End the rooms that are open, as a sidecar does when its engine goes."""
        for room in tuple(self._open_rooms):
            self.abort(room, "the engine left its port")

    async def _wait(self, room: int, future: asyncio.Future[_Result]) -> _Result:
        try:
            return await asyncio.wait_for(asyncio.shield(future), self._timeout_s)
        except TimeoutError:
            self.abort(room, f"nobody came within {self._timeout_s} s")
            raise TransferError(f"room {room}: nobody came within {self._timeout_s} s") from None
        except asyncio.CancelledError:
            self.abort(room, "the other side was cancelled")
            raise
