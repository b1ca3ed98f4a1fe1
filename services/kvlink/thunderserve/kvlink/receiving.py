"""The decode side: frames are checked, decoded and handed to the engine."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from thunderserve.core.errors import ThunderServeError, TransferError
from thunderserve.kvlink.codec import Int4Codec, Raw16Codec
from thunderserve.kvlink.protocol import (
    HEADER_BYTES,
    FrameError,
    FrameHeader,
    FrameKind,
    TransferState,
    check_payload,
    decode_header,
    encode_header,
    make_frame,
)
from thunderserve.kvlink.protocol.message import MessageKind, pack_json
from thunderserve.kvlink.rooms import Role, Room
from thunderserve.kvlink.transport import BufferPool, ByteStream, StreamClosedError

if TYPE_CHECKING:
    from thunderserve.core.kv import KvLayout
    from thunderserve.kvlink.exchange import Exchange

__all__ = ["Receiving"]

_log = logging.getLogger(__name__)
_CODECS = {codec.mode: codec for codec in (Raw16Codec, Int4Codec)}


class Receiving:
    """Moves pages from the peers to the engine."""

    def __init__(self, exchange: Exchange, buffers: BufferPool) -> None:
        self._exchange = exchange
        self._buffers = buffers

    async def reserve(self, number: int, peer_address: str, page_count: int) -> None:
        """The engine wants a room: ask the prefill side for it; a failure ends the room."""
        exchange, session = self._exchange, self._exchange.session
        now_s, layout = exchange.clock(), session.layout
        try:
            room = exchange.rooms.reserve(number, Role.RECEIVING, layout, page_count, now_s)
        except ThunderServeError as error:
            failed = pack_json({"reason": str(error)})
            await session.tell(MessageKind.FAILED, number, failed)
            return
        room.peer_address = peer_address
        try:
            await exchange.peers.reserve(peer_address, number, layout, page_count)
        except ThunderServeError as error:
            exchange.abort(room, str(error))

    async def serve(self, stream: ByteStream) -> None:
        """One bulk connection: rooms one after the other, until it ends."""
        header_bytes = memoryview(bytearray(HEADER_BYTES))
        room: Room | None = None
        try:
            while True:
                await stream.read_into(header_bytes)
                header = decode_header(header_bytes, self._buffers.buffer_bytes)
                room = self._enter(header, stream, room)
                async with self._buffers.take(header.payload_bytes) as payload:
                    await stream.read_into(payload)
                    await self._take(room, header, payload)
                if room.state is TransferState.COMMITTED:
                    await stream.write(_committed(header))
                    room = None
        except ThunderServeError as error:
            await self._give_up(room, error)

    def _enter(self, header: FrameHeader, stream: ByteStream, current: Room | None) -> Room:
        """The room of a frame; a connection carries one room at a time."""
        if current is not None:
            if current.number != header.room:
                raise FrameError(f"room {header.room} amid room {current.number}'s frames")
            return current
        room = self._exchange.rooms.get(header.room)
        if room.role is not Role.RECEIVING or room.ended.is_set() or room.stream is not None:
            raise TransferError(f"room {header.room} takes no frames: it is {room.state}")
        room.stream = stream
        return room

    async def _take(self, room: Room, header: FrameHeader, payload: memoryview) -> None:
        """Check one frame and pass it on; raises when the room cannot go on."""
        exchange, transfer = self._exchange, room.transfer
        if transfer is None:
            raise TransferError(f"room {room.number} was never reserved")
        check_payload(header, payload)
        if header.kind is FrameKind.END:
            transfer.check_complete()
            room.stream = None
            exchange.rooms.commit(room, header, exchange.clock())
            await exchange.session.tell(MessageKind.COMMITTED, room.number)
            return
        transfer.accept(header, exchange.clock())
        if header.kind is FrameKind.AUX:
            await exchange.session.tell(MessageKind.AUX, room.number, payload)
            return
        values = await asyncio.to_thread(_decode, transfer.layout, header, payload)
        await exchange.session.tell(MessageKind.PAGES, room.number, values, header.block)

    async def _give_up(self, room: Room | None, error: ThunderServeError) -> None:
        if room is not None and isinstance(error, StreamClosedError):
            await self._exchange.lose(room, f"the prefill side's frames ended: {error}")
        elif room is not None:
            self._exchange.abort(room, str(error))
        elif not (isinstance(error, StreamClosedError) and error.clean):
            _log.warning("bulk connection closed: %s", error)


def _decode(layout: KvLayout, header: FrameHeader, payload: memoryview) -> memoryview:
    """The block's 16-bit values as bytes."""
    if header.block is None:
        raise FrameError(f"room {header.room}: pages without a block")
    codec = _CODECS[header.wire_mode](layout)
    values = codec.decode(payload, header.block.layer_count, header.block.page_count)
    return values.reshape(-1).data.cast("B")


def _committed(end: FrameHeader) -> bytes:
    return encode_header(make_frame(FrameKind.COMMITTED, end.room, end.fingerprint))
