"""The engine's side of the engine socket: synchronous, for use from any thread.

A decode engine reserves rooms and gets pages; a prefill engine learns of reserved rooms and sends
pages. What the sidecar tells arrives as calls of an `EngineEvents` in one reader thread. When the
sidecar goes away every open room fails, and the client connects again until it is closed.

An engine of several ranks has a client in each: all reserve a room, each is given and sends what it
holds of the pages, all finish it, and all are told how it ended.
"""

from __future__ import annotations

import logging
import threading
import time
import uuid
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from thunderserve.core.errors import (
    InvalidArgumentError,
    PreconditionError,
    TransferError,
    UnavailableError,
)
from thunderserve.kvlink.engine_link import EngineLink, FreeSlot
from thunderserve.kvlink.engine_reader import EngineReader, OpenRooms
from thunderserve.kvlink.engine_slots import EngineSlots
from thunderserve.kvlink.engine_socket import connect
from thunderserve.kvlink.protocol import Block, split_block
from thunderserve.kvlink.protocol.message import Message, MessageKind, pack_json

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import numpy.typing as npt

    from thunderserve.core.kv import KvLayout, KvPart
    from thunderserve.core.plan import Phase
    from thunderserve.kvlink.engine_events import EngineEvents

__all__ = ["EngineClient"]

_log = logging.getLogger(__name__)
_RECONNECT_INTERVAL_S = 0.2


class EngineClient:
    """One rank of an engine in one phase; to change the phase, close it and make another.

    Args:
        socket_path: The sidecar's `engine_socket`.
        layout: Of the engine's cache, all heads and layers.
        part: What this rank holds of it; None for an engine of one rank.
        engine: The same for all ranks of an engine in one phase and for no other; None where there
            is one rank.
    """

    def __init__(
        self,
        socket_path: Path,
        layout: KvLayout,
        phase: Phase,
        events: EngineEvents,
        *,
        part: KvPart | None = None,
        engine: str | None = None,
    ) -> None:
        self._path = socket_path
        self._layout = layout
        self._part = part or layout.whole
        self._hello = {
            "layout": asdict(layout),
            "part": asdict(self._part),
            "phase": phase.value,
            "engine": engine or uuid.uuid4().hex,
        }
        self._link: EngineLink | None = None
        self._rooms = OpenRooms()
        self._reader = EngineReader(layout, events, self._rooms, self.abort)
        self._closing = threading.Event()
        self._slot_freed: Callable[[], None] = _do_nothing
        self._thread = threading.Thread(target=self._run, name="kvlink-engine", daemon=True)

    def start(self, timeout_s: float = 10.0) -> None:
        """Connect and register.

        Raises:
            UnavailableError: There was no sidecar in time.
            PreconditionError: It does not take this engine; says why.
        """
        deadline = time.monotonic() + timeout_s
        while True:
            try:
                self._connect()
            except UnavailableError as error:
                if time.monotonic() > deadline:
                    raise UnavailableError(f"no kvlink sidecar at {self._path}: {error}") from error
                time.sleep(_RECONNECT_INTERVAL_S)
            else:
                self._thread.start()
                return

    def close(self) -> None:
        """End the connection; the sidecar aborts what is open. Safe to call twice."""
        self._closing.set()
        self._hang_up()
        if self._thread.is_alive() and self._thread is not threading.current_thread():
            self._thread.join()

    def reserve(self, room: int, peer_address: str, page_count: int) -> None:
        """Decode: fetch a room from the group whose sidecar is at `peer_address`.

        The memory for `page_count` pages is ready: `on_pages` may be called before this returns.

        Raises:
            TransferError: The sidecar is away.
        """
        self._rooms.add(room, peer_address)
        fields = {"peer_address": peer_address, "page_count": page_count}
        try:
            self._send(Message(MessageKind.RESERVE, room), pack_json(fields))
        except TransferError:
            self._rooms.forget(room)
            raise

    def send_pages(
        self,
        room: int,
        first_page: int,
        values: npt.NDArray[np.uint16],
        first_layer: int | None = None,
    ) -> None:
        """Prefill: send part of the cache; blocks while the network is slower than the caller.

        Args:
            room: A room that `on_reserved` named.
            first_page: Place of the first page within the request.
            values: (layers, keys|values, pages, page tokens, kv heads, head dim), uint16 bit
                patterns of all heads that this rank holds; may be reused on return.
            first_layer: Layer of the first values; None is the first that this rank holds.

        Raises:
            InvalidArgumentError: The shape is not the layout's.
            TransferError: The sidecar is away.
        """
        heads = self._part.head_count
        layers, pages = values.shape[0], values.shape[2] if values.ndim > 2 else 0  # noqa: PLR2004 - the shape is checked next
        expected = self._layout.block_shape(layers, pages, heads)
        if values.dtype != np.uint16 or values.shape != expected:
            raise InvalidArgumentError(
                f"values are {values.dtype} {values.shape}; expected uint16 {expected}",
                param="values",
            )
        first = self._part.first_layer if first_layer is None else first_layer
        whole = Block(first, layers, self._part.first_head, heads, first_page, pages)
        for block in split_block(self._layout, whole, self.block_bytes):
            self.send_block(room, block, partial(np.copyto, src=values[block.slices(whole)]))

    @property
    def block_bytes(self) -> int:
        """16-bit bytes of the longest block; raises TransferError when the sidecar is away."""
        return self._linked().socket.slots.slot_bytes

    def send_block(
        self,
        room: int,
        block: Block,
        fill: Callable[[npt.NDArray[np.uint16]], object],
        slot: FreeSlot | None = None,
    ) -> None:
        """Prefill: have a block written straight into memory that the sidecar reads, and sent.

        Args:
            room: A room that `on_reserved` named.
            block: At most `block_bytes`, of this rank's part.
            fill: Writes the values: (layers, keys|values, pages, page tokens, kv heads, head dim).
            slot: Of `try_slot`; None waits for one.

        Raises:
            TransferError: The sidecar is away.
        """
        if slot is None:
            link = self._linked()
            slot = FreeSlot(link, link.slots.take(self._rooms.peer(room)))
        slot.send(self._layout, room, block, fill)

    def has_slot(self, room: int) -> bool:
        """Prefill: false while `send_block` would wait for a slot; true when it would fail."""
        link = self._link
        return link is None or link.slots.has_one(self._rooms.peer(room))

    def try_slot(self, room: int) -> FreeSlot | None:
        """Prefill: a slot for a block of the room; None when there is none now."""
        if (link := self._link) is None:
            return None
        return link.free_slot(link.slots.try_take(self._rooms.peer(room)))

    def on_slot_freed(self, call: Callable[[], None]) -> None:
        """Prefill: have `call` called whenever `try_slot` may have another answer."""
        self._slot_freed = call

    def send_aux(self, room: int, aux: bytes) -> None:
        """Prefill: data that only the engines understand, sent once for each room, unaltered."""
        self._send(Message(MessageKind.AUX, room), aux)

    def computed(self, room: int) -> None:
        """Prefill: this rank has computed all of the room: from now on decode waits for the link.

        Raises:
            TransferError: The sidecar is away.
        """
        self._send(Message(MessageKind.COMPUTED, room))

    def finish(self, room: int) -> None:
        """Prefill: everything was sent; `on_committed` follows when the decode side has it."""
        self._send(Message(MessageKind.FINISH, room))

    def abort(self, room: int, reason: str, peer_address: str = "") -> None:
        """End a room on both sides; an ended one is left as it is.

        Args:
            room: Also one that is not reserved yet.
            reason: Told to both engines.
            peer_address: Decode: the prefill group's sidecar, which hears of a room that was
                aborted before it was reserved from nobody else.
        """
        fields = {"reason": reason, "peer_address": peer_address}
        try:
            self._send(Message(MessageKind.ABORT, room), pack_json(fields))
        except TransferError:
            _log.debug("room %d: the sidecar is away, nothing to abort", room)

    def _linked(self) -> EngineLink:
        if (link := self._link) is None:
            raise TransferError("the kvlink sidecar is away")
        return link

    def _send(self, message: Message, payload: bytes = b"") -> None:
        self._linked().socket.send(message, payload)

    def _connect(self) -> None:
        connection = connect(self._path, self._hello)
        slots = EngineSlots(connection.slots.slot_count, self._on_free)
        self._link = EngineLink(connection, slots)
        if self._closing.is_set():
            self._hang_up()

    def _on_free(self) -> None:
        self._slot_freed()

    def _hang_up(self) -> None:
        """Wakes whoever blocks in the connection."""
        if (link := self._link) is not None:
            link.hang_up()

    def _run(self) -> None:
        while not self._closing.is_set():
            try:
                if self._link is None:
                    self._connect()
                self._reader.read_all(self._linked())
            except (UnavailableError, PreconditionError) as error:
                self._lose(str(error))
                self._closing.wait(_RECONNECT_INTERVAL_S)
        self._lose("it was closed")

    def _lose(self, reason: str) -> None:
        if (link := self._link) is not None:
            self._hang_up()
            self._link = None
            link.socket.close()
        for room in self._rooms.clear():
            self._reader.tell_failed(room, f"the kvlink sidecar went away: {reason}")


def _do_nothing() -> None:
    """Nobody watches."""
