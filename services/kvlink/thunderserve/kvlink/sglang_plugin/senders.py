"""Prefill: threads that read pages and hand them to the sidecar, in order within a room."""

from __future__ import annotations

import logging
import queue
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from thunderserve.kvlink.protocol import block_of_part, split_block

if TYPE_CHECKING:
    from collections.abc import Callable

    from thunderserve.kvlink.engine_client import EngineClient
    from thunderserve.kvlink.sglang_plugin.memory import AuxMemory, PageMemory

__all__ = ["Chunk", "Senders"]

_log = logging.getLogger(__name__)
_THREADS = 2
# Read at once: bounds what a long prompt's chunk holds on the device and on the host.
_READ_BYTES = 4 * 1024 * 1024


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


class Senders:
    """A room keeps to one thread, so its chunks stay in order and its end comes last.

    Every rank sends what it holds, unless a lower one holds the same, and one the metadata.

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
        self._queues: list[queue.SimpleQueue[Chunk | None]] = []
        self._threads: list[threading.Thread] = []
        for number in range(_THREADS):
            chunks: queue.SimpleQueue[Chunk | None] = queue.SimpleQueue()
            name = f"kvlink-send-{number}"
            thread = threading.Thread(target=self._run, args=(chunks,), name=name, daemon=True)
            self._queues.append(chunks)
            self._threads.append(thread)
            thread.start()

    def put(self, chunk: Chunk) -> None:
        """Send it soon; never blocks."""
        self._queues[chunk.room % len(self._queues)].put(chunk)

    def close(self) -> None:
        """End the threads; close the client first, or they may be blocked in it."""
        for chunks in self._queues:
            chunks.put(None)
        for thread in self._threads:
            thread.join()

    def _run(self, chunks: queue.SimpleQueue[Chunk | None]) -> None:
        while (chunk := chunks.get()) is not None:
            try:
                self._send(chunk)
            except Exception as error:  # noqa: BLE001 - one room's failure must not end the others
                _log.warning("room %d cannot be sent: %s", chunk.room, error)
                self._on_failure(chunk.room, str(error))

    def _send(self, chunk: Chunk) -> None:
        if chunk.computed is not None:
            chunk.computed.synchronize()
        if len(chunk.pages) and not self._pages.part.copy:
            self._send_pages(chunk)
        if chunk.aux_row is not None:
            if self._pages.part.rank == 0:
                self._client.send_aux(chunk.room, self._aux.read(chunk.aux_row))
            self._client.finish(chunk.room)

    def _send_pages(self, chunk: Chunk) -> None:
        whole = block_of_part(self._pages.part, chunk.first_page, len(chunk.pages))
        for block in split_block(self._pages.layout, whole, _READ_BYTES):
            first = block.first_page - chunk.first_page
            values = self._pages.read(block, chunk.pages[first : first + block.page_count])
            self._client.send_pages(chunk.room, block.first_page, values, block.first_layer)
