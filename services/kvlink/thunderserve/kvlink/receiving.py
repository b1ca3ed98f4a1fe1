"""The decode side: frames are checked, decoded and handed to the engine."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING

import numpy as np

from thunderserve.core.errors import ThunderServeError, TransferError
from thunderserve.kvlink.codec import Int4Codec, Raw16Codec, Values
from thunderserve.kvlink.protocol import (
    HEADER_BYTES,
    Block,
    FrameError,
    FrameHeader,
    FrameKind,
    FrameTooLargeError,
    TransferState,
    check_payload,
    decode_header,
    encode_header,
    make_frame,
)
from thunderserve.kvlink.protocol.message import MessageKind, pack_json
from thunderserve.kvlink.rooms import Role, Room
from thunderserve.kvlink.transport import BufferPool, Stream, StreamClosedError

if TYPE_CHECKING:
    from thunderserve.core.kv import KvLayout
    from thunderserve.kvlink.exchange import Exchange
    from thunderserve.kvlink.session import Session

__all__ = ["Receiving"]

_log = logging.getLogger(__name__)
_CODECS = {codec.mode: codec for codec in (Raw16Codec, Int4Codec)}


class Receiving:
    """Moves pages from the peers to the engine."""

    def __init__(self, exchange: Exchange, buffers: BufferPool, stall_timeout_s: float) -> None:
        self._exchange = exchange
        self._buffers = buffers
        self._stall_timeout_s = stall_timeout_s

    async def reserve(
        self, session: Session, number: int, peer_address: str, page_count: int
    ) -> None:
        """A rank wants a room: when all ranks do, ask the prefill side; a failure ends the room."""
        exchange, layout = self._exchange, session.layout
        try:
            room = self._join(session, number, peer_address, page_count)
        except ThunderServeError as error:
            failed = pack_json({"reason": str(error)})
            await session.tell(MessageKind.FAILED, number, failed)
            return
        if not room.ranks.all_done or room.ended.is_set():
            return
        try:
            rates = exchange.modes.speeds.decode_rates
            await exchange.peers.reserve(peer_address, number, layout, page_count, rates)
        except ThunderServeError as error:
            exchange.abort(room, str(error))

    def _join(self, session: Session, number: int, peer_address: str, page_count: int) -> Room:
        """The room, with this rank counted in."""
        exchange, rank = self._exchange, session.part.rank
        room = exchange.rooms.find(number)
        if room is None or not _gathers(room):
            engine = exchange.engine
            room = exchange.rooms.reserve(
                number,
                Role.RECEIVING,
                engine.layout,
                page_count,
                exchange.clock(),
                rank_count=engine.rank_count,
            )
            room.peer_address = peer_address
        asked = room.transfer and room.transfer.page_count
        room.ranks.add(rank)
        if (asked, room.peer_address) != (page_count, peer_address):
            exchange.abort(
                room,
                f"rank {rank} asks {peer_address} for {page_count} pages, another rank "
                f"{room.peer_address} for {asked}",
            )
        return room

    async def serve(self, stream: Stream) -> None:
        """One bulk connection: rooms one after the other, until it ends."""
        header_bytes = memoryview(bytearray(HEADER_BYTES))
        room: Room | None = None
        try:
            while True:
                await stream.read_into(header_bytes)
                header = decode_header(header_bytes, self._buffers.buffer_bytes)
                room = self._enter(header, stream, room)
                async with self._buffers.take(header.payload_bytes) as payload:
                    # It holds a buffer that others wait for.
                    await stream.read_into(payload, self._stall_timeout_s)
                    await self._take(room, header, payload)
                if room.state is TransferState.COMMITTED:
                    await stream.write(_committed(header))
                    room = None
        except ThunderServeError as error:
            await self._give_up(room, error)
        except Exception:
            if room is not None:  # our bug, and still the room must not wait for its timeout
                self._exchange.abort(room, "the sidecar failed on a frame; its log says more")
            raise

    def _enter(self, header: FrameHeader, stream: Stream, current: Room | None) -> Room:
        """The room of a frame; a connection carries one room at a time."""
        if current is not None:
            if current.number != header.room:
                raise FrameError(f"room {header.room} amid room {current.number}'s frames")
            return current
        room = self._exchange.rooms.get(header.room)
        if not _takes_frames(room):
            raise TransferError(f"room {header.room} takes no frames: it is {room.state}")
        room.stream = stream
        return room

    async def _take(self, room: Room, header: FrameHeader, payload: memoryview) -> None:
        """Check one frame and pass it on; raises when the room cannot go on."""
        exchange, transfer = self._exchange, room.transfer
        if transfer is None:
            raise TransferError(f"room {room.number} was never reserved")
        start_s = time.perf_counter()
        check_payload(header, payload)
        if header.kind is FrameKind.END:
            transfer.check_complete()
            room.stream = None
            exchange.rooms.commit(room, header, exchange.clock())
            await exchange.engine.tell(MessageKind.COMMITTED, room.number)
            return
        self._check_size(transfer.layout, header)
        transfer.accept(header, exchange.clock())
        if header.kind is FrameKind.AUX:
            await exchange.engine.tell(MessageKind.AUX, room.number, payload)
            return
        block, values = await asyncio.to_thread(_decode, transfer.layout, header, payload)
        took_s = time.perf_counter() - start_s
        exchange.modes.speeds.decoded(header.wire_mode, values.nbytes, took_s)
        await self._hand_out(room, block, values)

    def _check_size(self, layout: KvLayout, header: FrameHeader) -> None:
        """The engine takes messages of a buffer's size; codes unfold to three times theirs."""
        if header.block is None:
            return
        raw_bytes, most_bytes = header.block.raw_bytes(layout), self._buffers.buffer_bytes
        if raw_bytes > most_bytes:
            raise FrameTooLargeError(
                f"room {header.room}: a frame of {raw_bytes} bytes of 16-bit values; "
                f"at most {most_bytes} are taken"
            )

    async def _hand_out(self, room: Room, block: Block, values: Values) -> None:
        """Each rank gets what it holds of a block; a copied head goes to every rank with a copy."""
        for session in self._exchange.engine.sessions:
            if (mine := block.intersection(session.part)) is not None:
                part = np.ascontiguousarray(values[mine.slices(block)])
                data = part.reshape(-1).data.cast("B")
                await session.tell(MessageKind.PAGES, room.number, data, mine)

    async def _give_up(self, room: Room | None, error: ThunderServeError) -> None:
        if room is not None and isinstance(error, StreamClosedError):
            await self._exchange.lose(room, f"the prefill side's frames ended: {error}")
        elif room is not None:
            self._exchange.abort(room, str(error))
        elif not (isinstance(error, StreamClosedError) and error.clean):
            _log.warning("bulk connection closed: %s", error)


def _gathers(room: Room) -> bool:
    """True when some ranks have asked for the room and others have not."""
    open_ = room.role is Role.RECEIVING and not room.ended.is_set()
    return open_ and not room.ranks.all_done


def _takes_frames(room: Room) -> bool:
    ready = room.role is Role.RECEIVING and room.ranks.all_done
    return ready and not room.ended.is_set() and room.stream is None


def _decode(layout: KvLayout, header: FrameHeader, payload: memoryview) -> tuple[Block, Values]:
    """The block and its 16-bit values."""
    block = header.block
    if block is None:
        raise FrameError(f"room {header.room}: pages without a block")
    codec = _CODECS[header.wire_mode](layout.of_heads(block.head_count))
    return block, codec.decode(payload, block.layer_count, block.page_count)


def _committed(end: FrameHeader) -> bytes:
    return encode_header(make_frame(FrameKind.COMMITTED, end.room, end.fingerprint))
