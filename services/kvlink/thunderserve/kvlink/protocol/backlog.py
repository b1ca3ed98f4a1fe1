"""What waits to be sent, room by room, and in which order it goes; no I/O."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Generic, TypeVar

from thunderserve.kvlink.protocol.turns import Turns, Waiting

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Backlog"]

Item = TypeVar("Item")
_LAST_BYTES = 64  # of what ends a room: it must not look free


@dataclass(slots=True)
class _Room(Generic[Item]):
    """Attributes: left_bytes: What is still to come counts, once it is known."""

    items: deque[tuple[Item, int]] = field(default_factory=deque)
    queued_bytes: int = 0
    left_bytes: int | None = None
    under_way: int = 0
    last: Item | None = None

    def waiting(self, number: int) -> Waiting | None:
        """None when there is nothing to send now."""
        if self.items:
            left = self.queued_bytes if self.left_bytes is None else self.left_bytes
            return Waiting(number, self.items[0][1], left, self.left_bytes is not None)
        if self.last is not None and not self.under_way:
            return Waiting(number, _LAST_BYTES, 0, urgent=True)
        return None


class Backlog(Generic[Item]):
    """Items of a room go out in order, several may be under way; the last one goes alone.

    The caller serialises calls.
    """

    def __init__(self) -> None:
        self._turns = Turns()
        self._rooms: dict[int, _Room[Item]] = {}

    def add(self, room: int, item: Item, size_bytes: int) -> None:
        """Something to send."""
        known = self._rooms.setdefault(room, _Room())
        known.items.append((item, size_bytes))
        known.queued_bytes += size_bytes

    def hurry(self, room: int, left_bytes: int | None = None) -> None:
        """Prefill has ended: decode waits for nothing but these bytes; None is what is queued."""
        known = self._rooms.setdefault(room, _Room())
        known.left_bytes = known.queued_bytes if left_bytes is None else left_bytes

    def end(self, room: int, last: Item) -> None:
        """What is to be sent when all else of the room has been; the room is forgotten with it."""
        self._rooms.setdefault(room, _Room()).last = last

    def take(self, allowed: Callable[[int], bool] | None = None) -> tuple[int, Item] | None:
        """The next item and its room, until `done`; None when nothing waits.

        Args:
            allowed: Rooms that it returns false for are passed over.
        """
        waiting = [
            turn
            for number, room in self._rooms.items()
            if (turn := room.waiting(number)) is not None and (allowed is None or allowed(number))
        ]
        if not waiting:
            return None
        chosen = self._turns.choose(waiting)
        room = self._rooms[chosen.room]
        if not room.items and room.last is not None:
            self.drop(chosen.room)
            return chosen.room, room.last
        item, size_bytes = room.items.popleft()
        room.queued_bytes -= size_bytes
        room.under_way += 1
        if room.left_bytes is not None:
            room.left_bytes = max(0, room.left_bytes - size_bytes)
        return chosen.room, item

    def done(self, room: int) -> None:
        """An item that was taken has been sent."""
        if (known := self._rooms.get(room)) is not None:
            known.under_way -= 1

    def drop(self, room: int) -> list[Item]:
        """Forget a room; what it had waiting."""
        self._turns.forget(room)
        known = self._rooms.pop(room, None)
        return [] if known is None else [item for item, _ in known.items]
