"""One room's transfer: every page of every head and layer and the aux data, each exactly once.

Blocks may cut layers, heads and pages as the sending engine's ranks hold them; the books are of the
whole cache, so they mean the same on both sides whatever the two engines' parallel degrees are.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING

from thunderserve.core.errors import InvalidArgumentError, TransferError
from thunderserve.core.request import TransferReport, WireMode
from thunderserve.kvlink.protocol.errors import (
    FingerprintMismatchError,
    FrameOrderError,
    IncompleteTransferError,
)
from thunderserve.kvlink.protocol.frame import FrameHeader, FrameKind

if TYPE_CHECKING:
    from thunderserve.core.kv import KvLayout
    from thunderserve.kvlink.protocol.blocks import Block

__all__ = ["Transfer", "TransferState"]


class TransferState(StrEnum):
    """See the picture in the package's docstring."""

    RESERVED = "reserved"
    SENDING = "sending"
    COMMITTED = "committed"
    ABORTED = "aborted"


class Transfer:
    """The state of one room on one side; sender and receiver keep the same books.

    Args:
        layout: Of the engine on this side.
        page_count: Pages that the room holds, > 0.
        wire_mode: What the report names; frames carry their own.
    """

    def __init__(self, room: int, layout: KvLayout, page_count: int, wire_mode: WireMode) -> None:
        if page_count <= 0:
            raise InvalidArgumentError(f"room {room} holds {page_count} pages; it needs at least 1")
        self.room = room
        self.layout = layout
        self.page_count = page_count
        self.wire_mode = wire_mode
        self.state = TransferState.RESERVED
        self.failure = ""
        # One bit for each page, in rows of heads: layer * heads + head.
        self._seen = [0] * (layout.layer_count * layout.kv_head_count)
        self._aux_seen = False
        self._raw_bytes = self._wire_bytes = 0
        self._started_s = self._ended_s = 0.0
        self._computed_s: float | None = None
        self._hidden_bytes = 0

    @property
    def ended(self) -> bool:
        """True once committed or aborted."""
        return self.state in {TransferState.COMMITTED, TransferState.ABORTED}

    @property
    def left_bytes(self) -> int:
        """16-bit values that have not been counted in."""
        return self.page_count * self.layout.page_bytes - self._raw_bytes

    def note_computed(self, now_s: float) -> None:
        """Prefill has ended: what has not crossed the network by now, the decode side waits for."""
        self._computed_s, self._hidden_bytes = now_s, self._wire_bytes

    def accept(self, header: FrameHeader, now_s: float) -> None:
        """Count one PAGES or AUX frame in.

        Raises:
            TransferError: The room has ended.
            FingerprintMismatchError: Of another model or layout.
            FrameOrderError: Seen before, or outside of the room.
        """
        self.check_open()
        if header.fingerprint != self.layout.fingerprint:
            raise FingerprintMismatchError(
                f"room {self.room}: fingerprint {header.fingerprint:016x}, "
                f"this engine's is {self.layout.fingerprint:016x}"
            )
        if self.state is TransferState.RESERVED:
            self.state, self._started_s = TransferState.SENDING, now_s
        if header.kind is FrameKind.AUX:
            self._accept_aux()
        elif header.kind is FrameKind.PAGES and header.block is not None:
            self._accept_block(header.block)
        else:
            raise FrameOrderError(f"room {self.room}: unexpected {header.kind.name} frame")
        self._wire_bytes += header.frame_bytes

    def check_open(self) -> None:
        """Raises TransferError when the room has ended."""
        if self.ended:
            raise TransferError(f"room {self.room} is {self.state}: {self.failure}")

    def check_complete(self) -> None:
        """Raises IncompleteTransferError, which says what is missing."""
        # Counted, never compared with a mask of all pages: their number may be a peer's word.
        missing = [row for row, seen in enumerate(self._seen) if seen.bit_count() < self.page_count]
        if missing:
            pages = self.page_count - self._seen[missing[0]].bit_count()
            layer, head = divmod(missing[0], self.layout.kv_head_count)
            raise IncompleteTransferError(
                f"room {self.room}: {pages} of {self.page_count} pages missing in layer {layer}, "
                f"head {head}; {len(missing)} of {len(self._seen)} heads are incomplete"
            )
        if not self._aux_seen:
            raise IncompleteTransferError(f"room {self.room}: the aux data is missing")

    def commit(self, end: FrameHeader, now_s: float) -> None:
        """End well; `end` is the END frame, which counts as wire bytes.

        Raises:
            IncompleteTransferError: Something is missing.
            TransferError: The room was aborted before.
        """
        if self.state is TransferState.ABORTED:
            raise TransferError(f"room {self.room} is aborted: {self.failure}")
        self.check_complete()
        self._wire_bytes += end.frame_bytes
        self._end(TransferState.COMMITTED, now_s)

    def abort(self, reason: str, now_s: float) -> bool:
        """End badly; False when it has ended before, which changes nothing."""
        if self.ended:
            return False
        self.failure = reason
        self._end(TransferState.ABORTED, now_s)
        return True

    @property
    def report(self) -> TransferReport:
        """What it took so far."""
        seconds = max(0.0, self._ended_s - self._started_s) if self._started_s else 0.0
        since_s = self._started_s if self._computed_s is None else self._computed_s
        exposed_s = max(0.0, self._ended_s - since_s) if since_s else 0.0
        return TransferReport(
            self._raw_bytes,
            self._wire_bytes,
            seconds,
            self.wire_mode,
            exposed_s=exposed_s,
            exposed_bytes=self._wire_bytes - self._hidden_bytes,
        )

    def _end(self, state: TransferState, now_s: float) -> None:
        self.state, self._ended_s = state, now_s
        self._seen = []  # ended rooms are remembered for a while, what they hold need not be

    def _accept_aux(self) -> None:
        if self._aux_seen:
            raise FrameOrderError(f"room {self.room}: aux data twice")
        self._aux_seen = True

    def _accept_block(self, block: Block) -> None:
        heads = self.layout.kv_head_count
        outside = (
            block.end_layer > self.layout.layer_count
            or block.end_head > heads
            or block.end_page > self.page_count
        )
        if outside:
            raise FrameOrderError(
                f"room {self.room}: {block} is outside of {self.layout.layer_count} layers, "
                f"{heads} heads and {self.page_count} pages"
            )
        mask = ((1 << block.page_count) - 1) << block.first_page
        rows = [
            layer * heads + head
            for layer in range(block.first_layer, block.end_layer)
            for head in range(block.first_head, block.end_head)
        ]
        if any(self._seen[row] & mask for row in rows):
            raise FrameOrderError(f"room {self.room}: {block} holds pages that came before")
        for row in rows:
            self._seen[row] |= mask
        self._raw_bytes += block.raw_bytes(self.layout)
