"""Prefill: layers of a forward pass that are written are sent while later ones are computed.

SGLang hands a chunk to its transfer backend when the pass has ended. What a layer wrote is final
before: a request's pages up to the chunk's end hold earlier chunks, a cached prefix and this pass,
and nobody else writes them. So each layer counts as ready when it has been written for the whole
batch, in the order of layers; whatever does not fit that picture (a layer written twice, for part
of the batch, out of order, or by a kernel that does not ask the pool) is left to the chunk.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from collections.abc import Callable

    from thunderserve.core.kv import KvLayout, KvPart

__all__ = ["LayerStream", "Written"]

# Smaller blocks cost more in messages than their lead is worth: a millisecond of 1 Gbit/s.
_LEAST_BYTES = 128 * 1024


@dataclass(frozen=True, slots=True)
class Written:
    """Pages that the running pass completes.

    Attributes:
        first_page: Place of the first page within the request.
        pages: Numbers in the pool.
    """

    room: int
    first_page: int
    pages: npt.NDArray[np.int32]


class LayerStream:
    """One forward pass after another; belongs to the scheduler's thread.

    Args:
        put: Takes pages, how many of the rank's layers are ready in them, and what to wait for
            before they are read.
    """

    def __init__(
        self, layout: KvLayout, part: KvPart, put: Callable[[Written, int, Any], None]
    ) -> None:
        self._first_layer, self._layer_count = part.first_layer, part.layer_count
        self._page_bytes = layout.page_head_bytes * part.head_count  # of one layer
        self._put = put
        self._batch: list[Written] = []
        self._token_count = 0
        self._put_count = self._ready_count = 0  # layers

    def begin(self, token_count: int) -> None:
        """A pass begins that writes so many tokens of every layer."""
        self._batch = []
        self._token_count = token_count
        self._put_count = self._ready_count = 0

    def add(self, written: Written) -> None:
        """It completes these pages."""
        if len(written.pages):
            self._batch.append(written)

    def end(self) -> None:
        """The pass is over: what was not sent goes with the chunk."""
        self._batch = []

    def note(self, layer: int, token_count: int, event: Callable[[], Any]) -> None:
        """A layer was written; `event` makes what to wait for before it is read."""
        if not self._batch:
            return
        if (layer, token_count) != (self._first_layer + self._ready_count, self._token_count):
            self._batch = []
            return
        self._ready_count += 1
        waiting = self._ready_count - self._put_count
        waiting_bytes = waiting * self._page_bytes * sum(len(each.pages) for each in self._batch)
        is_last = self._ready_count == self._layer_count
        if waiting_bytes < _LEAST_BYTES or is_last:  # the last ones go with the chunk, just after
            return
        done = event()
        for each in self._batch:
            self._put(each, self._ready_count, done)
        self._put_count = self._ready_count
