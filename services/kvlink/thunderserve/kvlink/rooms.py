"""The rooms that a sidecar knows, from the first word about one until it is forgotten."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import TYPE_CHECKING

from thunderserve.core.errors import NotFoundError, OverloadedError, TransferError
from thunderserve.core.request import TransferReport, WireMode
from thunderserve.kvlink.protocol import FrameHeader, Transfer, TransferState
from thunderserve.kvlink.transport import Stream

if TYPE_CHECKING:
    from thunderserve.core.kv import KvLayout

__all__ = ["Ranks", "Role", "Room", "Rooms"]

# Peers may end rooms that nobody has opened, as many as they like.
_MOST_ENDED = 16_384


CONFIGURED = "this sidecar's wire_mode"


class Role(StrEnum):
    """What this side does with a room."""

    SENDING = "sending"
    RECEIVING = "receiving"


class Ranks:
    """The ranks of this side's engine that have done their part: each once."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._done: set[int] = set()

    @property
    def all_done(self) -> bool:
        """True once every rank has."""
        return len(self._done) == self._count

    def __contains__(self, rank: int) -> bool:
        """True when the rank has done its part."""
        return rank in self._done

    def add(self, rank: int) -> bool:
        """Count a rank in; True when it was the last one.

        Raises:
            TransferError: It has been counted before.
        """
        if rank in self._done:
            raise TransferError(f"rank {rank} of the engine did its part before")
        self._done.add(rank)
        return self.all_done


@dataclass(slots=True, eq=False)
class Room:
    """One transfer; `Rooms` alone changes its state.

    Attributes:
        wire_mode: As announced; how the sending side encodes. `AUTO` until its first pages come.
        wire_reason: Why, for people.
        decode_rates: Sending: what the peer said of its codecs, 16-bit bytes per second.
        role: None until it is reserved.
        transfer: None until it is reserved.
        peer_address: The other sidecar.
        ranks: Receiving: those that have asked for the room; sending: those that have queued all of
            theirs.
        computed: Sending: those that have computed all of theirs.
        aux_rank: Sending: the rank that has sent the metadata.
        at_end: Called when it ends.
        stream: The bulk connection, while there is one.
        turn: Held while a frame is written: the engine's ranks send beside each other.
        ended: Set once it is committed or aborted.
    """

    number: int
    wire_mode: WireMode
    opened_s: float
    wire_reason: str = ""
    decode_rates: dict[WireMode, float] = field(default_factory=dict)
    role: Role | None = None
    transfer: Transfer | None = None
    peer_address: str = ""
    ranks: Ranks = field(default_factory=lambda: Ranks(1))
    computed: Ranks = field(default_factory=lambda: Ranks(1))
    aux_rank: int | None = None
    at_end: Callable[[], None] | None = None
    stream: Stream | None = None
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    failure: str = ""
    ended_s: float = 0.0
    ended: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def state(self) -> TransferState:
        """Where the room is in its life; one that is announced alone counts as reserved."""
        if self.transfer is not None:
            return self.transfer.state
        return TransferState.ABORTED if self.failure else TransferState.RESERVED

    @property
    def report(self) -> TransferReport:
        """What the transfer took so far."""
        if self.transfer is None:
            return TransferReport(0, 0, 0.0, self.wire_mode, self.wire_reason)
        return replace(self.transfer.report, wire_reason=self.wire_reason)

    def travel_as(self, mode: WireMode, reason: str) -> None:
        """Set the wire mode and say why."""
        self.wire_mode, self.wire_reason = mode, reason
        if self.transfer is not None:
            self.transfer.wire_mode = mode


class Rooms:
    """Bounded: at most `max_rooms` are open; ended ones are forgotten, the oldest first.

    Args:
        default_mode: Of rooms that were announced without a wire mode, or not announced.
        open_limit_s: A room that has not ended by then is overdue.
        forget_after_s: How long an ended room can still be asked about.
    """

    def __init__(
        self,
        *,
        default_mode: WireMode,
        max_rooms: int,
        open_limit_s: float,
        forget_after_s: float,
    ) -> None:
        self._default_mode = default_mode
        self._max_rooms = max_rooms
        self._open_limit_s = open_limit_s
        self._forget_after_s = forget_after_s
        self._rooms: dict[int, Room] = {}
        self._ended: deque[Room] = deque()  # in the order in which they ended
        self._open_count = 0

    def get(self, number: int) -> Room:
        """Raises NotFoundError for a room that is unknown, or forgotten."""
        room = self.find(number)
        if room is None:
            raise NotFoundError(f"this sidecar knows no room {number}")
        return room

    def find(self, number: int) -> Room | None:
        """None for a room that is unknown, or forgotten."""
        return self._rooms.get(number)

    def open_rooms(self) -> list[Room]:
        """Those that have not ended."""
        return [room for room in self._rooms.values() if not room.ended.is_set()]

    def announce(self, number: int, mode: WireMode, now_s: float) -> Room:
        """Open a room, or set the mode of one that the peer was faster to reserve."""
        room = self._rooms.get(number) or self._open(number, now_s)
        if mode is WireMode.DEFAULT:
            room.travel_as(self._default_mode, CONFIGURED)
        else:
            room.travel_as(mode, "the request asks for it")
        return room

    def reserve(
        self,
        number: int,
        role: Role,
        layout: KvLayout,
        page_count: int,
        now_s: float,
        *,
        rank_count: int = 1,
    ) -> Room:
        """Make a room ready for its pages, which `rank_count` ranks send or receive.

        Raises:
            TransferError: It has ended, or is reserved already.
            OverloadedError: Too many rooms are open.
            InvalidArgumentError: `page_count` is not > 0.
        """
        known = self._rooms.get(number)
        if known is not None and known.ended.is_set():
            raise TransferError(f"room {number} has ended: {known.failure or known.state}")
        if known is not None and known.transfer is not None:
            raise TransferError(f"room {number} is reserved already; a room serves one attempt")
        mode = self._default_mode if known is None else known.wire_mode
        transfer = Transfer(number, layout, page_count, mode)  # refuses before a place is taken
        room = known or self._open(number, now_s)
        room.role, room.transfer = role, transfer
        room.ranks, room.computed = Ranks(rank_count), Ranks(rank_count)
        return room

    def commit(self, room: Room, end: FrameHeader, now_s: float) -> None:
        """End a room well; raises TransferError when it cannot be."""
        if room.transfer is None:
            raise TransferError(f"room {room.number} was never reserved")
        if room.ended.is_set():
            raise TransferError(f"room {room.number} has ended: {room.failure or room.state}")
        room.transfer.commit(end, now_s)
        self._end(room, now_s)

    def abort(self, room: Room, reason: str, now_s: float) -> bool:
        """End a room badly; False when it has ended before, which changes nothing."""
        if room.ended.is_set():
            return False
        room.failure = reason
        if room.transfer is not None:
            room.transfer.abort(reason, now_s)
        self._end(room, now_s)
        return True

    def bury(self, number: int, reason: str, now_s: float) -> None:
        """Remember a room as aborted that was never heard of: its reservation is on its way."""
        self.abort(self._open(number, now_s), reason, now_s)

    def overdue(self, now_s: float) -> list[Room]:
        """Open rooms older than the limit; forgets the old ended ones on the way."""
        horizon_s = now_s - self._forget_after_s
        while self._ended and self._ended[0].ended_s < horizon_s:
            self._forget_oldest()
        return [r for r in self.open_rooms() if now_s - r.opened_s > self._open_limit_s]

    def _open(self, number: int, now_s: float) -> Room:
        if self._open_count >= self._max_rooms:
            raise OverloadedError(f"{self._open_count} transfers are open, as many as are allowed")
        self._open_count += 1
        room = self._rooms[number] = Room(number, self._default_mode, now_s, CONFIGURED)
        return room

    def _end(self, room: Room, now_s: float) -> None:
        self._open_count -= 1
        room.ended_s = now_s
        room.ended.set()
        if room.at_end is not None:
            room.at_end()
            room.at_end = None
        self._ended.append(room)
        if len(self._ended) > _MOST_ENDED:
            self._forget_oldest()

    def _forget_oldest(self) -> None:
        del self._rooms[self._ended.popleft().number]
