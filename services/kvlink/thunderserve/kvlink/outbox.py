"""What waits for one peer, and the link's turn: encoded and written room by room."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from thunderserve.core.errors import ThunderServeError
from thunderserve.core.request import WireMode
from thunderserve.kvlink.codec import codec_for
from thunderserve.kvlink.protocol import (
    Backlog,
    Block,
    FrameHeader,
    FrameKind,
    Transfer,
    encode_header,
    make_frame,
)
from thunderserve.kvlink.session import Session
from thunderserve.kvlink.transport import BufferPool, Stream, StreamClosedError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from thunderserve.kvlink.codec_threads import CodecThreads
    from thunderserve.kvlink.exchange import Exchange
    from thunderserve.kvlink.protocol.frame import Buffer
    from thunderserve.kvlink.rooms import Room

__all__ = ["Outbox", "Pages", "end_of"]

_log = logging.getLogger(__name__)
# Blocks under way at once: one is encoded while another is written.
_WIDTH = 2


@dataclass(frozen=True, slots=True)
class Pages:
    """A block in a rank's slot.

    Attributes:
        values: The slot's bytes: 16-bit values, all of the block.
    """

    session: Session
    block: Block
    slot: int
    values: memoryview


@dataclass(frozen=True, slots=True)
class _Aux:
    payload: memoryview


class _End:
    """Everything was sent."""


class Outbox:
    """One for each peer, so that a slow one keeps nobody else waiting.

    Args:
        open_stream: A room's bulk connection, made with its first frame.
        frame_bytes: The longest payload.
    """

    def __init__(
        self,
        exchange: Exchange,
        open_stream: Callable[[Room], Awaitable[Stream]],
        threads: CodecThreads,
        frame_bytes: int,
    ) -> None:
        self._exchange = exchange
        self._threads = threads
        self._open_stream = open_stream
        self._backlog: Backlog[Pages | _Aux | _End] = Backlog()
        self._rooms: dict[int, Room] = {}
        self._connected: set[int] = set()
        self._buffers = BufferPool(_WIDTH, frame_bytes)
        self._workers = 0

    @property
    def empty(self) -> bool:
        """True when it knows no room."""
        return not self._rooms

    def add(self, room: Room, pages: Pages) -> None:
        """Send a block in its turn; the slot is given back when it was read."""
        self._enter(room)
        self._backlog.add(room.number, pages, len(pages.values))

    def add_aux(self, room: Room, payload: memoryview) -> None:
        """Send the engine's own data in its turn."""
        self._enter(room)
        self._backlog.add(room.number, _Aux(payload), len(payload))

    def hurry(self, room: Room, left_bytes: int) -> None:
        """The decode side waits for nothing but these bytes."""
        self._enter(room)
        self._backlog.hurry(room.number, left_bytes)

    def end(self, room: Room) -> None:
        """Say END when all of the room has been sent."""
        self._enter(room)
        self._backlog.end(room.number, _End())

    def drop(self, room: Room) -> None:
        """The room has ended: what waits of it is not sent, and its slots go back."""
        self._rooms.pop(room.number, None)
        self._connected.discard(room.number)
        for work in self._backlog.drop(room.number):
            if isinstance(work, Pages):
                self._exchange.spawn(work.session.free(work.slot))

    def _enter(self, room: Room) -> None:
        if room.number not in self._rooms:
            self._rooms[room.number] = room
            self._exchange.spawn(self._connect(room))
        self._wake()

    async def _connect(self, room: Room) -> None:
        """Beside the others: their turns are not spent on a handshake."""
        try:
            await self._open_stream(room)
        except ThunderServeError as error:
            self._exchange.abort(room, str(error))
            return
        if room.number in self._rooms:
            self._connected.add(room.number)
            self._wake()

    def _wake(self) -> None:
        if self._workers < _WIDTH:
            self._workers += 1
            self._exchange.spawn(self._run())

    async def _run(self) -> None:
        try:
            while (taken := self._backlog.take(self._connected.__contains__)) is not None:
                number, work = taken
                await self._do(self._rooms[number], work)
                self._backlog.done(number)
        finally:
            self._workers -= 1

    async def _do(self, room: Room, work: Pages | _Aux | _End) -> None:
        try:
            if room.transfer is not None and not room.ended.is_set():
                await self._send(room, room.transfer, work)
            elif isinstance(work, Pages):
                await work.session.free(work.slot)
        except StreamClosedError:
            return  # whoever watches the stream ends the room, with the peer's reason
        except ThunderServeError as error:
            self._exchange.abort(room, str(error))
        except Exception:  # noqa: BLE001 - one room's bug must not end the others
            _log.exception("room %d: sending failed", room.number)
            self._exchange.abort(room, "the sidecar failed while it sent")

    async def _send(self, room: Room, transfer: Transfer, work: Pages | _Aux | _End) -> None:
        if isinstance(work, Pages):
            await self._send_pages(room, transfer, work)
        elif isinstance(work, _Aux):
            layout = transfer.layout
            header = make_frame(FrameKind.AUX, room.number, layout.fingerprint, work.payload)
            await self._write(room, transfer, header, work.payload)
        else:
            transfer.check_complete()
            async with room.turn:
                stream = await self._open_stream(room)
                await stream.write(encode_header(end_of(transfer)))

    async def _send_pages(self, room: Room, transfer: Transfer, pages: Pages) -> None:
        """The slot goes back as soon as it was read: after encoding, or after a raw write."""
        freed = False
        async with self._buffers.take(self._buffers.buffer_bytes) as out:
            try:
                header, payload = await self._encode(room, transfer, pages, out)
                if header.wire_mode is not WireMode.RAW16:  # whose payload is the slot itself
                    freed = True
                    await pages.session.free(pages.slot)
                await self._write(room, transfer, header, payload)
            finally:
                if not freed:
                    await pages.session.free(pages.slot)

    async def _encode(
        self, room: Room, transfer: Transfer, pages: Pages, out: memoryview
    ) -> tuple[FrameHeader, memoryview]:
        encode = partial(_encode, transfer, self._mode_of(room, transfer), pages, out)
        start_s, size = time.perf_counter(), len(pages.values)
        header, payload = await self._threads.run(size, encode)
        took_s = time.perf_counter() - start_s
        self._exchange.modes.speeds.encoded(header.wire_mode, size, took_s)
        return header, payload

    def _mode_of(self, room: Room, transfer: Transfer) -> WireMode:
        """A room that is left to the sidecar is decided once, when its first pages go."""
        if room.wire_mode is WireMode.AUTO:
            raw_bytes = transfer.page_count * transfer.layout.page_bytes
            choice = self._exchange.modes.choose(room.peer_address, raw_bytes, room.decode_rates)
            room.travel_as(choice.mode, choice.reason)
        return room.wire_mode

    async def _write(
        self, room: Room, transfer: Transfer, header: FrameHeader, payload: Buffer
    ) -> None:
        transfer.accept(header, self._exchange.clock())
        async with room.turn:
            stream = await self._open_stream(room)
            start_s = time.perf_counter()
            await stream.write(encode_header(header), payload)
            took_s = time.perf_counter() - start_s
        self._exchange.modes.wrote(room.peer_address, header.payload_bytes, took_s)


def end_of(transfer: Transfer) -> FrameHeader:
    """The END frame of a room."""
    return make_frame(FrameKind.END, transfer.room, transfer.layout.fingerprint)


def _encode(
    transfer: Transfer, mode: WireMode, pages: Pages, out: memoryview
) -> tuple[FrameHeader, memoryview]:
    """The frame of a block; its payload lies in `out`, or in the slot where it goes as it is."""
    layout, block = transfer.layout, pages.block
    codec = codec_for(mode, layout.of_heads(block.head_count), block)
    values = np.frombuffer(pages.values, dtype=np.uint16).reshape(block.shape(layout))
    encoded = codec.encode(values, out)
    fingerprint, room = layout.fingerprint, transfer.room
    header = make_frame(
        FrameKind.PAGES, room, fingerprint, encoded, wire_mode=codec.mode, block=block
    )
    return header, encoded
