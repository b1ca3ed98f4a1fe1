"""Prefill: threads that gather pages into the sidecar's slots, in the order that serves most."""

from __future__ import annotations

import functools
import itertools
import logging
import threading
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from thunderserve.kvlink.protocol import Backlog, Block, split_block

if TYPE_CHECKING:
    from collections.abc import Callable

    from thunderserve.kvlink.engine_client import EngineClient
    from thunderserve.kvlink.engine_link import FreeSlot
    from thunderserve.kvlink.sglang_plugin.layers import Written
    from thunderserve.kvlink.sglang_plugin.memory import AuxMemory, PageMemory

__all__ = ["Chunk", "Senders"]

_log = logging.getLogger(__name__)
_THREADS = 2


@dataclass(frozen=True, slots=True)
class Chunk:
    """Pages of a room that the engine has computed.

    Attributes:
        first_page: Place of the first page within the request.
        pages: Numbers in the pool.
        aux_row: Row of the metadata; set for the last chunk alone.
        computed: A CUDA event to wait for before reading, or None.
    """

    room: int
    first_page: int
    pages: npt.NDArray[np.int32]
    aux_row: int | None
    computed: Any = None


@dataclass(frozen=True, slots=True)
class _Piece:
    """A block of a chunk: what a slot takes."""

    block: Block
    chunk: Chunk

    @property
    def pages(self) -> npt.NDArray[np.int32]:
        """Numbers in the pool."""
        first = self.block.first_page - self.chunk.first_page
        return self.chunk.pages[first : first + self.block.page_count]


@dataclass(frozen=True, slots=True)
class _Last:
    """Metadata and the end of a room."""

    aux_row: int


_Work = _Piece | _Last


class Senders:
    """Every rank sends what it holds, unless a lower one holds the same, and one the metadata.

    Args:
        on_failure: Told the room and the reason when a chunk cannot be sent.
    """

    def __init__(
        self,
        client: EngineClient,
        pages: PageMemory,
        aux: AuxMemory,
        on_failure: Callable[[int, str], None],
    ) -> None:
        self._client = client
        self._pages = pages
        self._aux = aux
        self._on_failure = on_failure
        self._backlog: Backlog[_Piece | _Last] = Backlog()
        self._sent: dict[int, dict[int, int]] = {}  # how many layers, by room and page
        self._computed: deque[int] = deque()  # rooms of which the sidecar is still to be told
        self._changed = threading.Condition()
        self._closed = False
        client.on_slot_freed(self._wake)
        self._threads = [
            threading.Thread(target=self._run, name=f"kvlink-send-{number}", daemon=True)
            for number in range(_THREADS)
        ]
        for thread in self._threads:
            thread.start()

    def put(self, chunk: Chunk) -> None:
        """Send it soon; never blocks."""
        with self._changed:
            if len(chunk.pages) and not self._pages.part.copy:
                self._put_pages(chunk, self._pages.part.layer_count)
            if chunk.aux_row is not None:
                self._sent.pop(chunk.room, None)
                self._backlog.hurry(chunk.room)
                self._backlog.end(chunk.room, _Last(chunk.aux_row))
                self._computed.append(chunk.room)
            self._changed.notify_all()

    def put_layers(self, written: Written, layer_count: int, computed: Any) -> None:
        """The first layers of pages whose chunk is still to come, which then goes without them."""
        if self._pages.part.copy:
            return
        chunk = Chunk(written.room, written.first_page, written.pages, None, computed)
        with self._changed:
            self._put_pages(chunk, layer_count)
            self._changed.notify_all()

    def drop(self, room: int) -> None:
        """The room has ended: nothing more of it is sent."""
        with self._changed:
            self._sent.pop(room, None)
            self._backlog.drop(room)

    def close(self) -> None:
        """End the threads; close the client first, or they may be blocked in it."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()

    def _put_pages(self, chunk: Chunk, layer_count: int) -> None:
        """So many layers but those that went before, in runs of pages of which as many did."""
        part, sent = self._pages.part, self._sent.setdefault(chunk.room, {})
        pages = range(chunk.first_page, chunk.first_page + len(chunk.pages))
        for done, run in itertools.groupby(pages, lambda page: sent.get(page, 0)):
            first, *rest = run
            if done < layer_count:
                layers = (part.first_layer + done, layer_count - done)
                heads = (part.first_head, part.head_count)
                self._add(chunk, Block(*layers, *heads, first, 1 + len(rest)))
                sent.update(dict.fromkeys((first, *rest), layer_count))

    def _add(self, chunk: Chunk, whole: Block) -> None:
        layout = self._pages.layout
        for block in split_block(layout, whole, self._client.block_bytes):
            self._backlog.add(chunk.room, _Piece(block, chunk), block.raw_bytes(layout))

    def _wake(self) -> None:
        with self._changed:
            self._changed.notify_all()

    def _run(self) -> None:
        while (taken := self._next()) is not None:
            room, work, slot = taken
            try:
                self._send(room, work, slot)
            except Exception as error:  # noqa: BLE001 - one room's failure must not end the others
                _log.warning("room %d cannot be sent: %s", room, error)
                self.drop(room)
                self._on_failure(room, str(error))
            with self._changed:
                if work is not None:
                    self._backlog.done(room)
                self._changed.notify_all()

    def _next(self) -> tuple[int, _Work | None, FreeSlot | None] | None:
        """A room and what to send of it, with a slot for pages; waits, None at the end."""
        with self._changed:
            while not self._closed:
                if self._computed:
                    return self._computed.popleft(), None, None
                if (taken := self._backlog.take(self._client.has_slot)) is not None:
                    room, work = taken
                    pages = isinstance(work, _Piece)
                    return room, work, self._client.try_slot(room) if pages else None
                self._changed.wait()
        return None

    def _send(self, room: int, work: _Work | None, slot: FreeSlot | None) -> None:
        if work is None:
            self._client.computed(room)
        elif isinstance(work, _Piece):
            if work.chunk.computed is not None:
                work.chunk.computed.synchronize()
            block, pages = work.block, work.pages
            fill = functools.partial(self._pages.read, block, pages)
            self._client.send_block(room, block, fill, slot)
        else:
            if self._pages.part.rank == 0:
                self._client.send_aux(room, self._aux.read(work.aux_row))
            self._client.finish(room)
