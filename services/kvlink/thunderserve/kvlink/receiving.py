"""The decode side: frames are checked, decoded and handed to the engine."""

from __future__ import annotations

import logging
import time
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from thunderserve.core.errors import ThunderServeError, TransferError
from thunderserve.core.request import WireMode
from thunderserve.kvlink.codec import Codec, Int4Codec, Raw16Codec, Values
from thunderserve.kvlink.pages_frame import PagesFrame, slot_for
from thunderserve.kvlink.protocol import (
    HEADER_BYTES,
    Block,
    FrameError,
    FrameHeader,
    FrameKind,
    FrameTooLargeError,
    Transfer,
    TransferState,
    check_payload,
    decode_header,
    encode_header,
    make_frame,
)
from thunderserve.kvlink.protocol.message import MAX_PAYLOAD_BYTES, MessageKind, pack_json
from thunderserve.kvlink.rooms import Role, Room
from thunderserve.kvlink.transport import BufferPool, Stream, StreamClosedError

if TYPE_CHECKING:
    from thunderserve.core.kv import KvLayout
    from thunderserve.kvlink.codec_threads import CodecThreads
    from thunderserve.kvlink.exchange import Exchange
    from thunderserve.kvlink.session import Session

__all__ = ["Receiving"]

_log = logging.getLogger(__name__)
_CODECS = {codec.mode: codec for codec in (Raw16Codec, Int4Codec)}


class Receiving:
    """Moves pages from the peers to the engine."""

    def __init__(
        self,
        exchange: Exchange,
        threads: CodecThreads,
        buffers: BufferPool,
        stall_timeout_s: float,
    ) -> None:
        self._exchange = exchange
        self._threads = threads
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
                if header.kind is FrameKind.PROBE:
                    await self._answer(header, stream, room)
                    continue
                room = self._enter(header, stream, room)
                await self._take(room, header, stream)
                if room.state is TransferState.COMMITTED:
                    await stream.write(_committed(header))
                    room = None
        except ThunderServeError as error:
            await self._give_up(room, error)
        except Exception:
            if room is not None:  # our bug, and still the room must not wait for its timeout
                self._exchange.abort(room, "the sidecar failed on a frame; its log says more")
            raise

    async def _answer(self, probe: FrameHeader, stream: Stream, current: Room | None) -> None:
        """A peer measures the way to here."""
        if current is not None:
            raise FrameError(f"room {current.number}: a PROBE amid its frames")
        async with self._buffers.take(probe.payload_bytes) as payload:
            await stream.read_into(payload, self._stall_timeout_s)
            check_payload(probe, payload)
        await stream.write(encode_header(make_frame(FrameKind.PROBE, probe.room, 0)))

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

    async def _take(self, room: Room, header: FrameHeader, stream: Stream) -> None:
        """Read a frame's payload and pass it on; raises when the room cannot go on."""
        exchange, transfer = self._exchange, room.transfer
        if transfer is None:
            raise TransferError(f"room {room.number} was never reserved")
        if header.kind is FrameKind.END:
            await self._read_small(stream, header)
            transfer.check_complete()
            room.stream = None
            exchange.rooms.commit(room, header, exchange.clock())
            await exchange.engine.tell(MessageKind.COMMITTED, room.number)
            return
        transfer.accept(header, exchange.clock())
        if header.block is not None:
            await self._take_pages(transfer, header, header.block, stream)
        else:
            aux = await self._read_small(stream, header)
            await exchange.engine.tell(MessageKind.AUX, room.number, aux)

    async def _take_pages(
        self, transfer: Transfer, header: FrameHeader, block: Block, stream: Stream
    ) -> None:
        """Each rank gets what it holds of a block; a copied head goes to every rank with a copy."""
        codec = self._codec(transfer.layout, header, block)
        shares = [
            (session, mine)
            for session in self._exchange.engine.sessions
            if (mine := block.intersection(session.part)) is not None
        ]
        frame = PagesFrame(header, block, codec, stream, self._stall_timeout_s)
        if len(shares) > 1 or shares[0][1] != block:
            await self._take_apart(transfer, frame, shares)
        elif header.wire_mode is WireMode.RAW16:
            await self._take_raw(transfer, frame, shares[0][0])
        else:
            await self._take_encoded(transfer, frame, shares[0][0])

    def _codec(self, layout: KvLayout, header: FrameHeader, block: Block) -> Codec:
        """Of a block that fits a slot; codes unfold to three times their size."""
        raw_bytes, most_bytes = block.raw_bytes(layout), self._buffers.buffer_bytes
        if raw_bytes > most_bytes:
            raise FrameTooLargeError(
                f"room {header.room}: a frame of {raw_bytes} bytes of 16-bit values; "
                f"at most {most_bytes} are taken"
            )
        codec = _CODECS[header.wire_mode](layout.of_heads(block.head_count))
        expected_bytes = codec.payload_bytes(block.layer_count, block.page_count)
        if header.payload_bytes != expected_bytes:
            raise FrameError(
                f"room {header.room}: {block} with a {header.wire_mode} payload of "
                f"{header.payload_bytes} bytes; expected {expected_bytes}"
            )
        return codec

    async def _take_raw(self, transfer: Transfer, frame: PagesFrame, session: Session) -> None:
        """Into the slot of the one rank that holds the block."""
        async with slot_for(session, transfer, frame.block) as (slot, values):
            await frame.read_into(values)
            await self._unpack(frame, len(values), values)
            await session.give(transfer.room, frame.block, slot)

    async def _take_encoded(self, transfer: Transfer, frame: PagesFrame, session: Session) -> None:
        """Decoded into the slot of the one rank that holds the block."""
        async with self._buffers.take(frame.header.payload_bytes) as payload:
            await frame.read_into(payload)
            async with slot_for(session, transfer, frame.block) as (slot, values):
                await self._unpack(frame, len(values), payload, values)
                await session.give(transfer.room, frame.block, slot)

    async def _take_apart(
        self, transfer: Transfer, frame: PagesFrame, shares: list[tuple[Session, Block]]
    ) -> None:
        """Decoded once; each rank's part is copied into a slot of that rank."""
        async with self._buffers.take(frame.header.payload_bytes) as payload:
            await frame.read_into(payload)
            raw_bytes = frame.block.raw_bytes(transfer.layout)
            values = await self._unpack(frame, raw_bytes, payload)
            for session, mine in shares:
                async with slot_for(session, transfer, mine) as (slot, memory):
                    target = np.frombuffer(memory, dtype=np.uint16)
                    part = values[mine.slices(frame.block)]
                    np.copyto(target.reshape(part.shape), part)
                    await session.give(transfer.room, mine, slot)

    async def _unpack(
        self,
        frame: PagesFrame,
        raw_bytes: int,
        payload: memoryview,
        out: memoryview | None = None,
    ) -> Values:
        start_s = time.perf_counter()
        values = await self._threads.run(raw_bytes, partial(frame.unpack, payload, out))
        took_s = time.perf_counter() - start_s
        self._exchange.modes.speeds.decoded(frame.header.wire_mode, raw_bytes, took_s)
        return values

    async def _read_small(self, stream: Stream, header: FrameHeader) -> memoryview:
        """The payload of a frame that is not pages."""
        if header.payload_bytes > MAX_PAYLOAD_BYTES:
            raise FrameTooLargeError(
                f"room {header.room}: {header.payload_bytes} bytes of metadata"
            )
        payload = memoryview(bytearray(header.payload_bytes))
        if payload:
            await stream.read_into(payload, self._stall_timeout_s)
        check_payload(header, payload)
        return payload

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


def _committed(end: FrameHeader) -> bytes:
    return encode_header(make_frame(FrameKind.COMMITTED, end.room, end.fingerprint))
