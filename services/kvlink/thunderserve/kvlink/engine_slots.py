"""Prefill: an engine's rank fills slots that its sidecar reads."""

from __future__ import annotations

import threading
from collections import Counter
from typing import TYPE_CHECKING

from thunderserve.core.errors import TransferError
from thunderserve.kvlink.slots import Lending

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["EngineSlots"]


class EngineSlots:
    """Deals a connection's slots out to peers; a peer holds at most as many as are left free.

    So one peer alone gets half of the slots, two get a third each, and a slow one never holds those
    that another needs (Choudhury and Hahne, dynamic queue length thresholds, 1998).

    Args:
        on_free: Called when a slot came back, in the thread that gave it.
    """

    def __init__(self, slot_count: int, on_free: Callable[[], None]) -> None:
        self._lending = Lending(slot_count)
        self._free = list(range(slot_count))  # the last used first: it is in a cache
        self._held: Counter[str] = Counter()
        self._peers: dict[int, str] = {}
        self._changed = threading.Condition()
        self._closed = False
        self._on_free = on_free

    def has_one(self, peer: str) -> bool:
        """False while `take` would wait."""
        with self._changed:
            return self._closed or self._open_to(peer)

    def try_take(self, peer: str) -> int | None:
        """A slot for a peer's pages; None when it would have to wait, or the connection is gone."""
        with self._changed:
            return self._take(peer) if self._open_to(peer) and not self._closed else None

    def take(self, peer: str) -> int:
        """A slot for a peer's pages; waits for one, raises TransferError when lost."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._open_to(peer))
            if self._closed:
                raise TransferError("the kvlink sidecar is away")
            return self._take(peer)

    def give_back(self, slot: int) -> None:
        """It may be filled again; raises FrameError when it was not away."""
        with self._changed:
            self._lending.take_back(slot)
            self._free.append(slot)
            peer = self._peers.pop(slot)
            self._held[peer] -= 1
            if not self._held[peer]:
                del self._held[peer]
            self._changed.notify_all()
        self._on_free()

    def close(self) -> None:
        """The connection is gone; whoever waits fails."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._on_free()

    def _open_to(self, peer: str) -> bool:
        return self._held[peer] < len(self._free)

    def _take(self, peer: str) -> int:
        slot = self._free.pop()
        self._lending.lend(slot)
        self._held[peer] += 1
        self._peers[slot] = peer
        return slot
