"""The prefill side: the engine's pages are queued for their peer and sent as frames."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from thunderserve.core.errors import (
    PreconditionError,
    TransferError,
    UnavailableError,
)
from thunderserve.core.kv import KvLayout
from thunderserve.core.plan import Phase
from thunderserve.core.request import WireMode
from thunderserve.kvlink.outbox import Outbox, Pages, end_of
from thunderserve.kvlink.protocol import (
    HEADER_BYTES,
    Block,
    FrameError,
    FrameKind,
    decode_header,
)
from thunderserve.kvlink.protocol.message import MessageKind, pack_json
from thunderserve.kvlink.rooms import Role, Room

if TYPE_CHECKING:
    from thunderserve.kvlink.codec_threads import CodecThreads
    from thunderserve.kvlink.exchange import Exchange
    from thunderserve.kvlink.links import Links
    from thunderserve.kvlink.session import Session
    from thunderserve.kvlink.transport import Stream

__all__ = ["Reservation", "Sending"]

_MAX_OUTBOXES = 64


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
    """Moves pages from the engine to the peers.

    Args:
        frame_bytes: The longest payload of a frame.
    """

    def __init__(
        self, exchange: Exchange, links: Links, threads: CodecThreads, frame_bytes: int
    ) -> None:
        self._exchange = exchange
        self._links = links
        self._threads = threads
        self._frame_bytes = frame_bytes
        self._outboxes: dict[str, Outbox] = {}

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
        room.at_end = partial(self._drop, room)
        told = pack_json({"page_count": wanted.page_count, "peer": wanted.peer_address})
        await engine.tell(MessageKind.RESERVED, room.number, told)

    def pages(self, session: Session, number: int, block: Block, slot: int) -> None:
        """Queue a block that a rank has put into a slot; the slot goes back when it was read."""
        room = self._open(number)
        if room is None or room.transfer is None:
            self._exchange.spawn(session.free(slot))
            return
        try:
            _check_may_send(session, room, block)
            values = session.slots.view(slot, block.raw_bytes(room.transfer.layout))
        except FrameError as error:
            self._exchange.spawn(session.free(slot))
            self._exchange.abort(room, str(error))
            return
        self._outbox(room).add(room, Pages(session, block, slot, values))

    def aux(self, session: Session, number: int, payload: memoryview) -> None:
        """Queue the engine's own data, which one rank sends once."""
        if (room := self._open(number)) is None:
            return
        if room.aux_rank is not None:
            rank = session.part.rank
            self._exchange.abort(room, f"ranks {room.aux_rank} and {rank} both sent metadata")
            return
        room.aux_rank = session.part.rank
        self._outbox(room).add_aux(room, payload)

    def computed(self, session: Session, number: int) -> None:
        """A rank has computed all of a room: when all have, the decode side waits for the link."""
        room = self._open(number)
        if room is None or room.transfer is None:
            return
        try:
            if room.computed.add(session.part.rank):
                room.transfer.note_computed(self._exchange.clock())
                self._outbox(room).hurry(room, room.transfer.left_bytes)
        except TransferError as error:
            self._exchange.abort(room, str(error))

    def finish(self, session: Session, number: int) -> None:
        """A rank has queued everything; COMMITTED follows when all have and the peer has it."""
        if (room := self._open(number)) is None:
            return
        try:
            if room.ranks.add(session.part.rank):
                self._outbox(room).end(room)
        except TransferError as error:
            self._exchange.abort(room, str(error))

    def _outbox(self, room: Room) -> Outbox:
        peer = room.peer_address
        if peer not in self._outboxes:
            self._forget_idle()
            self._outboxes[peer] = Outbox(
                self._exchange, self._stream, self._threads, self._frame_bytes
            )
        return self._outboxes[peer]

    def _drop(self, room: Room) -> None:
        if (outbox := self._outboxes.get(room.peer_address)) is not None:
            outbox.drop(room)

    def _forget_idle(self) -> None:
        """Peers come and go; what is kept for one that is idle is a few buffers."""
        if len(self._outboxes) >= _MAX_OUTBOXES:
            idle = [peer for peer, outbox in self._outboxes.items() if outbox.empty]
            for peer in idle:
                del self._outboxes[peer]

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
            exchange.rooms.commit(room, end_of(room.transfer), exchange.clock())
        room.stream = None
        self._links.release(room.peer_address, stream)
        await exchange.engine.tell(MessageKind.COMMITTED, room.number)

    def _open(self, number: int) -> Room | None:
        """None when the room has ended: the engine may not have heard yet."""
        room = self._exchange.rooms.find(number)
        if room is None or room.ended.is_set() or room.role is not Role.SENDING:
            return None
        return room


def _check_may_send(session: Session, room: Room, block: Block) -> None:
    rank = session.part.rank
    if block.intersection(session.part) != block:
        raise FrameError(f"room {room.number}: {block} is not of what rank {rank} holds")
    if rank in room.ranks:
        raise FrameError(f"room {room.number}: rank {rank} sends pages after it had finished")
