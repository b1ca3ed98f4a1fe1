"""The engine client for an asyncio engine: whole caches in, whole caches out."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import numpy as np

from thunderserve.core.errors import TransferError
from thunderserve.kvlink.engine_client import EngineClient

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import numpy.typing as npt

    from thunderserve.core.kv import KvLayout
    from thunderserve.core.plan import Phase
    from thunderserve.kvlink.protocol import Block

__all__ = ["EnginePort"]

_MOST_PLACES = 1024


class EnginePort:
    """Moves whole caches of rooms through the sidecar; cancelling a call aborts its room.

    Args:
        socket_path: The sidecar's `engine_socket`.
        timeout_s: For a room to be reserved by the other side, or to arrive: as long as the
            sidecar gives a transfer.
        connect_timeout_s: For the sidecar to come up.
    """

    def __init__(
        self, socket_path: Path, *, timeout_s: float = 120.0, connect_timeout_s: float = 10.0
    ) -> None:
        self._path = socket_path
        self._connect_timeout_s = connect_timeout_s
        self._timeout_s = timeout_s
        self._client: EngineClient | None = None
        self._layout: KvLayout | None = None
        self._rooms = _Rooms()

    async def open(self, phase: Phase, layout: KvLayout) -> None:
        """Register; UnavailableError without a sidecar, PreconditionError when it refuses."""
        self._rooms, self._layout = _Rooms(), layout
        self._client = EngineClient(self._path, layout, phase, self._rooms)
        await asyncio.to_thread(self._client.start, self._connect_timeout_s)

    async def close(self) -> None:
        """Leave the sidecar; safe to call twice."""
        client, self._client = self._client, None
        if client is not None:
            await asyncio.to_thread(client.close)

    async def wait_reserved(self, room: int) -> None:
        """Wait until the decode side has memory for the room."""
        place = self._rooms.place(room)
        try:
            async with asyncio.timeout(self._timeout_s):
                await place.reserved.wait()
            place.check()
        except BaseException as error:
            self.abort(room, str(error) or type(error).__name__)
            raise _transfer_error(room, error, self._timeout_s) from error

    async def send(self, room: int, values: npt.NDArray[np.uint16], aux: bytes) -> None:
        """Send a room's cache; returns when the decode side has it."""
        client, place = self._opened(), self._rooms.place(room)
        try:
            async with asyncio.timeout(self._timeout_s):
                await place.reserved.wait()
                place.check()
                await asyncio.to_thread(_send_all, client, room, values, aux)
                await place.ended.wait()
            place.check()
        except BaseException as error:
            self.abort(room, str(error) or type(error).__name__)
            raise _transfer_error(room, error, self._timeout_s) from error
        self._rooms.forget(room)

    async def receive(
        self, room: int, peer_address: str, page_count: int
    ) -> tuple[npt.NDArray[np.uint16], bytes]:
        """Fetch a room's cache and aux from the group whose sidecar is at `peer_address`."""
        client, place = self._opened(), self._rooms.place(room)
        values = np.zeros(self._shape(page_count), np.uint16)
        place.values = values
        try:
            async with asyncio.timeout(self._timeout_s):
                await asyncio.to_thread(client.reserve, room, peer_address, page_count)
                await place.ended.wait()
            place.check()
        except BaseException as error:
            self.abort(room, str(error) or type(error).__name__, peer_address)
            raise _transfer_error(room, error, self._timeout_s) from error
        self._rooms.forget(room)
        return values, place.aux

    def abort(self, room: int, reason: str, peer_address: str = "") -> None:
        """End a room on both sides; the peer's address is needed before it is reserved."""
        self._rooms.forget(room)
        if self._client is not None:
            self._client.abort(room, reason, peer_address)

    def _shape(self, page_count: int) -> tuple[int, ...]:
        layout = self._layout
        return () if layout is None else layout.block_shape(layout.layer_count, page_count)

    def _opened(self) -> EngineClient:
        if self._client is None:
            raise TransferError("the kvlink port is not open")
        return self._client


def _send_all(client: EngineClient, room: int, values: npt.NDArray[np.uint16], aux: bytes) -> None:
    client.computed(room)
    client.send_pages(room, 0, values)
    client.send_aux(room, aux)
    client.finish(room)


def _transfer_error(room: int, error: BaseException, timeout_s: float) -> BaseException:
    if isinstance(error, TimeoutError):
        return TransferError(f"room {room}: no transfer within {timeout_s} s")
    return error


class _Place:
    """What is known of one room."""

    def __init__(self) -> None:
        self.reserved, self.ended = asyncio.Event(), asyncio.Event()
        self.values: npt.NDArray[np.uint16] | None = None
        self.aux = b""
        self.failure = ""

    def check(self) -> None:
        """Raise TransferError when the room has failed."""
        if self.failure:
            raise TransferError(self.failure)


class _Rooms:
    """The client's events: bytes are stored in its thread, everything else in the loop's."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._places: dict[int, _Place] = {}

    def place(self, room: int) -> _Place:
        """The room's place; a reservation, or a failure, may have come before its engine does."""
        if len(self._places) > _MOST_PLACES:
            self._prune()
        return self._places.setdefault(room, _Place())

    def forget(self, room: int) -> None:
        """Nobody waits for the room any more."""
        self._places.pop(room, None)

    def on_reserved(self, room: int, page_count: int) -> None:
        """A decode side waits for this room's pages."""
        del page_count
        self._in_loop(lambda: self._reserved(room))

    def on_pages(self, room: int, block: Block, values: npt.NDArray[np.uint16]) -> None:
        """Store part of the cache."""
        place = self._places.get(room)
        if place is None or place.values is None:
            return
        place.values[block.slices()] = values

    def on_aux(self, room: int, aux: bytes) -> None:
        """Store the prefill engine's own data."""
        if (place := self._places.get(room)) is not None:
            place.aux = aux

    def on_committed(self, room: int) -> None:
        """Everything has arrived."""
        self._in_loop(lambda: self._end(room, ""))

    def on_failed(self, room: int, reason: str) -> None:
        """The room is lost."""
        self._in_loop(lambda: self._end(room, reason))

    def _reserved(self, room: int) -> None:
        self.place(room).reserved.set()

    def _end(self, room: int, failure: str) -> None:
        place = self.place(room)
        place.failure = failure
        place.reserved.set()
        place.ended.set()

    def _prune(self) -> None:
        """Let go of the oldest rooms that failed before their engine came."""
        lost = [room for room, place in self._places.items() if place.failure]
        for room in lost[: _MOST_PLACES // 2]:
            del self._places[room]

    def _in_loop(self, act: Callable[[], None]) -> None:
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(act)
