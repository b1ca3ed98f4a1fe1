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
from typing import TYPE_CHECKING, Protocol

import numpy as np

from thunderserve.core.errors import (
    InvalidArgumentError,
    PreconditionError,
    TransferError,
    UnavailableError,
)
from thunderserve.kvlink.engine_socket import EngineSocket
from thunderserve.kvlink.protocol import Block, split_block
from thunderserve.kvlink.protocol.message import Message, MessageKind, pack_json, unpack_json

if TYPE_CHECKING:
    from pathlib import Path

    import numpy.typing as npt

    from thunderserve.core.kv import KvLayout, KvPart
    from thunderserve.core.plan import Phase

__all__ = ["EngineClient", "EngineEvents"]

_log = logging.getLogger(__name__)
_RECONNECT_INTERVAL_S = 0.2
# Told of rooms that the engine has not named yet: a reservation, or that none will come.
_UNASKED = (MessageKind.RESERVED, MessageKind.FAILED)


class EngineEvents(Protocol):
    """What the sidecar tells an engine; called in the reader thread, and must not block.

    After `on_committed` or `on_failed` nothing more is told of a room.
    """

    def on_reserved(self, room: int, page_count: int) -> None:
        """Prefill: a decode side waits for this room's pages."""

    def on_pages(self, room: int, block: Block, values: npt.NDArray[np.uint16]) -> None:
        """Decode: part of the cache came.

        Args:
            room: The room.
            block: Where in the room the values belong: layers and heads are the whole model's.
            values: (layers, keys|values, pages, page tokens, kv heads, head dim), uint16 bit
                patterns of the layout's dtype; valid during the call alone.
        """

    def on_aux(self, room: int, aux: bytes) -> None:
        """Decode: the prefill engine's own data came, as it was sent."""

    def on_committed(self, room: int) -> None:
        """Everything has arrived: told to both sides."""

    def on_failed(self, room: int, reason: str) -> None:
        """The room is lost: told to both sides, also for the engine's own `abort`.

        The room may be one that this engine has not heard of: its request is still to come.
        """


class EngineClient:
    """One rank of an engine in one phase; to change the phase, close it and make another.

    Args:
        socket_path: The sidecar's `engine_socket`.
        layout: Of the engine's cache, all heads and layers.
        part: What this rank holds of it; None for an engine of one rank.
        engine: The same for all ranks of an engine in one phase and for no other; None where there
            is one rank.
        channels: Connections for sending; a room keeps to one, so rooms on different ones do
            not wait for each other.
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
        channels: int = 2,
    ) -> None:
        self._path = socket_path
        self._layout = layout
        self._part = part or layout.whole
        self._events = events
        self._hello = {
            "layout": asdict(layout),
            "part": asdict(self._part),
            "phase": phase.value,
            "engine": engine or uuid.uuid4().hex,
        }
        self._control = EngineSocket(socket_path, {**self._hello, "channel": "control"})
        send_hello = {**self._hello, "channel": "send"}
        self._senders = [EngineSocket(socket_path, send_hello) for _ in range(channels)]
        self._rooms: set[int] = set()
        self._lock = threading.Lock()
        self._closing = threading.Event()
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
                self._control.connect()
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
        for connection in (self._control, *self._senders):
            connection.close()
        if self._thread.is_alive() and self._thread is not threading.current_thread():
            self._thread.join()

    def reserve(self, room: int, peer_address: str, page_count: int) -> None:
        """Decode: fetch a room from the group whose sidecar is at `peer_address`.

        The memory for `page_count` pages is ready: `on_pages` may be called before this returns.

        Raises:
            TransferError: The sidecar is away.
        """
        with self._lock:
            self._rooms.add(room)
        fields = {"peer_address": peer_address, "page_count": page_count}
        try:
            self._control.send(Message(MessageKind.RESERVE, room), pack_json(fields))
        except TransferError:
            self._forget(room)
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
        sender = self._sender(room)
        first = self._part.first_layer if first_layer is None else first_layer
        whole = Block(first, layers, self._part.first_head, heads, first_page, pages)
        for block in split_block(self._layout, whole, sender.max_payload_bytes):
            part = np.ascontiguousarray(values[block.slices(whole)])
            sender.send(Message(MessageKind.PAGES, room, block), part.data.cast("B"))

    def send_aux(self, room: int, aux: bytes) -> None:
        """Prefill: data that only the engines understand, sent once for each room, unaltered."""
        self._sender(room).send(Message(MessageKind.AUX, room), aux)

    def finish(self, room: int) -> None:
        """Prefill: everything was sent; `on_committed` follows when the decode side has it."""
        self._sender(room).send(Message(MessageKind.FINISH, room))

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
            self._control.send(Message(MessageKind.ABORT, room), pack_json(fields))
        except TransferError:
            _log.debug("room %d: the sidecar is away, nothing to abort", room)

    def _sender(self, room: int) -> EngineSocket:
        sender = self._senders[room % len(self._senders)]
        try:
            sender.ensure_connected()
        except (UnavailableError, PreconditionError) as error:
            raise TransferError(f"room {room} cannot be sent: {error}") from error
        return sender

    def _run(self) -> None:
        while not self._closing.is_set():
            try:
                self._control.ensure_connected()
                self._read_all()
            except (UnavailableError, PreconditionError) as error:
                self._lose(str(error))
                self._closing.wait(_RECONNECT_INTERVAL_S)

    def _read_all(self) -> None:
        while True:
            message, payload = self._control.receive()
            try:
                self._dispatch(message, payload)
            except Exception:  # noqa: BLE001 - the engine's bug fails its room, not the link
                _log.exception("room %d: %s was not handled", message.room, message.kind.name)
                self._give_up(message.room, f"the engine failed on {message.kind.name}")

    def _dispatch(self, message: Message, payload: memoryview) -> None:
        room = message.room
        if room not in self._rooms and message.kind not in _UNASKED:
            return  # it ended here while the sidecar was still telling of it
        if message.kind is MessageKind.PAGES and message.block is not None:
            values = np.frombuffer(payload, dtype=np.uint16)
            shape = message.block.shape(self._layout)
            self._events.on_pages(room, message.block, values.reshape(shape))
        elif message.kind is MessageKind.AUX:
            self._events.on_aux(room, bytes(payload))
        elif message.kind is MessageKind.RESERVED:
            with self._lock:
                self._rooms.add(room)
            self._events.on_reserved(room, unpack_json(payload)["page_count"])
        elif message.kind is MessageKind.COMMITTED:
            self._forget(room)
            self._events.on_committed(room)
        elif message.kind is MessageKind.FAILED:
            self._forget(room)
            self._events.on_failed(room, unpack_json(payload)["reason"])

    def _give_up(self, room: int, reason: str) -> None:
        """Before the sidecar hears of it: it may have told already that the room is committed."""
        self._forget(room)
        self._tell_failed(room, reason)
        self.abort(room, reason)

    def _tell_failed(self, room: int, reason: str) -> None:
        try:
            self._events.on_failed(room, reason)
        except Exception:  # noqa: BLE001 - the other rooms must go on
            _log.exception("room %d: its failure was not handled", room)

    def _forget(self, room: int) -> None:
        with self._lock:
            self._rooms.discard(room)

    def _lose(self, reason: str) -> None:
        for connection in (self._control, *self._senders):
            connection.disconnect()
        with self._lock:
            lost, self._rooms = self._rooms, set()
        for room in lost:
            self._tell_failed(room, f"the kvlink sidecar went away: {reason}")
