"""Whose turn it is on a link: decided from what waits, without I/O.

Rooms whose decode side waits come first, the one with the least left of them, since that lets most
requests go on soonest. A quarter of the bytes is dealt to all rooms alike, by start-time fair
queueing (Goyal, Vin, Cheng, SIGCOMM 1996): the room that was served least is next, and a room that
comes begins level with the others. So none starves, and two rooms of one class that both have
something to send are never further apart than a block of each.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection

__all__ = ["Turns", "Waiting"]

# Of four bytes, one is dealt to all alike.
_URGENT_SHARE = 3


@dataclass(frozen=True, slots=True)
class Waiting:
    """A room that has something to send.

    Attributes:
        next_bytes: Size of what it would send next.
        left_bytes: All that it still has to send.
        urgent: Prefill has ended: the decode side waits for nothing but this transfer.
    """

    room: int
    next_bytes: int
    left_bytes: int
    urgent: bool


class Turns:
    """The link's memory of who was served; rooms that have ended are to be forgotten."""

    def __init__(self) -> None:
        self._served: dict[int, int] = {}  # bytes; what counts is the distance between two rooms
        self._level = 0  # where a room begins that comes now
        self._owed_bytes = 0  # sent by urgency since all were last served alike

    def choose(self, waiting: Collection[Waiting]) -> Waiting:
        """The room whose turn it is, which is thereby used up; `waiting` holds at least one."""
        fair = min(waiting, key=lambda room: (self._position(room), room.room))
        chosen = fair
        urgent = [room for room in waiting if room.urgent]
        if urgent:
            first = min(urgent, key=lambda room: (room.left_bytes, room.room))
            if first is not fair and self._owed_bytes < _URGENT_SHARE * fair.next_bytes:
                self._owed_bytes += first.next_bytes
                chosen = first
        if chosen is fair:
            self._owed_bytes = max(0, self._owed_bytes - _URGENT_SHARE * fair.next_bytes)
            self._level = self._position(fair)
        self._served[chosen.room] = self._position(chosen) + chosen.next_bytes
        return chosen

    def forget(self, room: int) -> None:
        """The room has ended."""
        self._served.pop(room, None)

    def _position(self, room: Waiting) -> int:
        return max(self._level, self._served.get(room.room, 0))
