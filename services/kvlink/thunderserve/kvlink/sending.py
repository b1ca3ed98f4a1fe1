"""The prefill side: the engine's pages are encoded and sent as frames."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from thunderserve.core.errors import (
    NotFoundError,
    PreconditionError,
    ThunderServeError,
    TransferError,
    UnavailableError,
)
from thunderserve.core.kv import KvLayout, KvPart
from thunderserve.core.plan import Phase
from thunderserve.core.request import WireMode
from thunderserve.kvlink.codec import codec_for
from thunderserve.kvlink.protocol import (
    HEADER_BYTES,
    Block,
    FrameError,
    FrameHeader,
    FrameKind,
    Transfer,
    decode_header,
    encode_header,
    make_frame,
)
from thunderserve.kvlink.protocol.message import MessageKind, pack_json
from thunderserve.kvlink.rooms import Role, Room
from thunderserve.kvlink.transport import Stream, StreamClosedError

if TYPE_CHECKING:
    from thunderserve.kvlink.exchange import Exchange
    from thunderserve.kvlink.links import Links
    from thunderserve.kvlink.protocol.frame import Buffer

__all__ = ["Reservation", "Sending"]


@dataclass(frozen=True, slots=True)
class Reservation:
    """What the decode side's sidecar asks for.

    Attributes:
        decode_rates: How fast it unpacks each wire mode, 16-bit bytes per second.
    """

    room: int
    layout: KvLayout
    page_count: int
    peer_address: str
    decode_rates: dict[WireMode, float] = field(default_factory=dict)


class Sending:
    """Moves pages from the engine to the peers."""

    def __init__(self, exchange: Exchange, links: Links) -> None:
        self._exchange = exchange
        self._links = links

    async def reserve(self, wanted: Reservation) -> None:
        """A decode side is ready for a room: tell the engine.

        Raises:
            UnavailableError: No engine is registered.
            PreconditionError: It is in another phase, or the two cannot exchange pages.
            TransferError: The room has ended, or was reserved before.
        """
        exchange, engine = self._exchange, self._exchange.engine
        if engine.phase is not Phase.PREFILL:
            raise PreconditionError(
                f"room {wanted.room}: the engine is in phase {engine.phase}, not PREFILL"
            )
        if difference := engine.layout.mismatch(wanted.layout):
            raise PreconditionError(f"room {wanted.room}: the engines do not match: {difference}")
        now_s = exchange.clock()
        room = exchange.rooms.reserve(
            wanted.room,
            Role.SENDING,
            engine.layout,
            wanted.page_count,
            now_s,
            rank_count=engine.rank_count,
        )
        room.peer_address, room.decode_rates = wanted.peer_address, wanted.decode_rates
        told = pack_json({"page_count": wanted.page_count})
        await engine.tell(MessageKind.RESERVED, room.number, told)

    async def pages(self, part: KvPart, number: int, block: Block, payload: memoryview) -> None:
        """Encode and send one block of 16-bit values, all of it held by the rank that sends it."""
        if (room := self._open(number)) is None or room.transfer is None:
            return
        transfer, mode = room.transfer, self._mode_of(room, room.transfer)
        try:
            if block.intersection(part) != block:
                raise FrameError(f"room {number}: {block} is not of what rank {part.rank} holds")
            start_s = time.perf_counter()
            header, encoded = await asyncio.to_thread(_encode, transfer, mode, block, payload)
            took_s = time.perf_counter() - start_s
            self._exchange.modes.speeds.encoded(header.wire_mode, payload.nbytes, took_s)
            await self._send(room, transfer, header, encoded)
        except ThunderServeError as error:
            self._exchange.abort(room, str(error))

    async def aux(self, number: int, payload: memoryview) -> None:
        """Send the engine's own data."""
        if (room := self._open(number)) is None or room.transfer is None:
            return
        transfer = room.transfer
        header = make_frame(FrameKind.AUX, number, transfer.layout.fingerprint, payload)
        try:
            await self._send(room, transfer, header, payload)
        except ThunderServeError as error:
            self._exchange.abort(room, str(error))

    async def finish(self, part: KvPart, number: int) -> None:
        """A rank has sent everything; COMMITTED follows when all have and the peer has it."""
        if (room := self._open(number)) is None or room.transfer is None:
            return
        try:
            if not room.ranks.add(part.rank):
                return
            room.transfer.check_complete()
            async with room.turn:
                stream = await self._stream(room)
                await stream.write(encode_header(_end_of(room.transfer)))
        except StreamClosedError:
            return  # whoever watches the stream ends the room
        except ThunderServeError as error:
            self._exchange.abort(room, str(error))

    async def _send(
        self, room: Room, transfer: Transfer, header: FrameHeader, payload: Buffer
    ) -> None:
        transfer.accept(header, self._exchange.clock())
        async with room.turn:
            stream = await self._stream(room)
            try:
                start_s = time.perf_counter()
                await stream.write(encode_header(header), payload)
                took_s = time.perf_counter() - start_s
                self._exchange.modes.wrote(room.peer_address, header.payload_bytes, took_s)
            except StreamClosedError:
                return  # whoever watches the stream ends the room, with the peer's reason

    async def _stream(self, room: Room) -> Stream:
        if room.stream is None:
            stream = await self._links.acquire(room.peer_address)
            if room.ended.is_set():  # while it was being opened
                stream.close()
                raise TransferError(f"room {room.number} has ended: {room.failure}")
            room.stream = stream
            self._exchange.modes.meter.watch(room.peer_address, stream.info("socket"))
            self._exchange.spawn(self._watch(room, room.stream))
        return room.stream

    async def _watch(self, room: Room, stream: Stream) -> None:
        """Wait for the peer's COMMITTED, or for the connection's end."""
        header = memoryview(bytearray(HEADER_BYTES))
        try:
            await stream.read_into(header)
            reply = decode_header(header, max_payload_bytes=0)
            if reply.kind is not FrameKind.COMMITTED or reply.room != room.number:
                raise FrameError(f"room {room.number}: the peer answered {reply}")
            await self._commit(room, stream)
        except UnavailableError as error:
            await self._exchange.lose(room, f"the decode side did not take the cache: {error}")

    async def _commit(self, room: Room, stream: Stream) -> None:
        exchange = self._exchange
        if room.transfer is not None:
            exchange.rooms.commit(room, _end_of(room.transfer), exchange.clock())
        room.stream = None
        self._links.release(room.peer_address, stream)
        await exchange.engine.tell(MessageKind.COMMITTED, room.number)

    def _mode_of(self, room: Room, transfer: Transfer) -> WireMode:
        """A room that is left to the sidecar is decided once, when its first pages come."""
        if room.wire_mode is WireMode.AUTO:
            layout = transfer.layout
            heads = layout.layer_count * layout.kv_head_count
            raw_bytes = layout.page_head_bytes * heads * transfer.page_count
            choice = self._exchange.modes.choose(room.peer_address, raw_bytes, room.decode_rates)
            room.travel_as(choice.mode, choice.reason)
        return room.wire_mode

    def _open(self, number: int) -> Room | None:
        """None when the room has ended: the engine may not have heard yet."""
        try:
            room = self._exchange.rooms.get(number)
        except NotFoundError:
            return None
        return None if room.ended.is_set() else room


def _encode(
    transfer: Transfer, mode: WireMode, block: Block, payload: memoryview
) -> tuple[FrameHeader, memoryview]:
    layout = transfer.layout
    shape = block.shape(layout)
    if payload.nbytes != block.raw_bytes(layout):
        raise FrameError(f"room {transfer.room}: {payload.nbytes} bytes for values of {shape}")
    codec = codec_for(mode, layout.of_heads(block.head_count), block)
    encoded = codec.encode(np.frombuffer(payload, dtype=np.uint16).reshape(shape))
    fingerprint, room = layout.fingerprint, transfer.room
    header = make_frame(
        FrameKind.PAGES, room, fingerprint, encoded, wire_mode=codec.mode, block=block
    )
    return header, encoded


def _end_of(transfer: Transfer) -> FrameHeader:
    return make_frame(FrameKind.END, transfer.room, transfer.layout.fingerprint)
