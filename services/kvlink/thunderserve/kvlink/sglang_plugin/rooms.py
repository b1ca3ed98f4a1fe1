"""What the plugin remembers of rooms beside SGLang's own books; guarded by the manager's lock."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = ["Arrivals", "Destination", "Reservations"]

# Rooms that were reserved and whose requests never came; the sidecar ends them after a while.
_MAX_ORPHANS = 4096


@dataclass(frozen=True, slots=True)
class Destination:
    """Decode: where a room's cache goes."""

    pages: npt.NDArray[np.int32]
    aux_row: int


class Arrivals:
    """Decode: rooms whose pages may be written now."""

    def __init__(self) -> None:
        self._rooms: dict[int, Destination] = {}

    def expect(self, room: int, destination: Destination) -> None:
        """From now on the room's pages are written there."""
        self._rooms[room] = destination

    def get(self, room: int) -> Destination | None:
        """None when they must not be written."""
        return self._rooms.get(room)

    def forget(self, room: int) -> None:
        """The room has ended."""
        self._rooms.pop(room, None)


class Reservations:
    """Prefill: rooms that a decode side waits for; the reservation may precede the request."""

    def __init__(self) -> None:
        self._page_counts: OrderedDict[int, int] = OrderedDict()
        self._failures: OrderedDict[int, str] = OrderedDict()

    def add(self, room: int, page_count: int) -> None:
        """A decode side is ready for a room."""
        self._page_counts[room] = page_count
        if len(self._page_counts) > _MAX_ORPHANS:
            self._page_counts.popitem(last=False)

    def fail(self, room: int, reason: str) -> None:
        """It is not any more, or never will be; the request must hear of it when it comes."""
        self._page_counts.pop(room, None)
        self._failures[room] = reason
        if len(self._failures) > _MAX_ORPHANS:
            self._failures.popitem(last=False)

    def page_count(self, room: int) -> int | None:
        """Pages that the decode side has ready; None without a reservation."""
        return self._page_counts.get(room)

    def failure(self, room: int) -> str | None:
        """Why a room was lost; None when it was not."""
        return self._failures.get(room)

    def forget(self, room: int) -> None:
        """The room has ended."""
        self._page_counts.pop(room, None)
        self._failures.pop(room, None)
