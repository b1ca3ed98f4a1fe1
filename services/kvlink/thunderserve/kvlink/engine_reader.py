"""The thread that hears a sidecar: messages become calls of the engine's `EngineEvents`."""

from __future__ import annotations

import contextlib
import logging
import threading
from typing import TYPE_CHECKING

from thunderserve.core.errors import TransferError
from thunderserve.kvlink.protocol.message import Message, MessageKind, unpack_json

if TYPE_CHECKING:
    from collections.abc import Callable

    from thunderserve.core.kv import KvLayout
    from thunderserve.kvlink.engine_events import EngineEvents
    from thunderserve.kvlink.engine_link import EngineLink
    from thunderserve.kvlink.protocol import Block

__all__ = ["EngineReader", "OpenRooms"]

_log = logging.getLogger(__name__)
# Told of rooms that the engine has not named yet: a reservation, or that none will come.
_UNASKED = (MessageKind.RESERVED, MessageKind.FAILED)


class OpenRooms:
    """Rooms that have not ended, and the peer of each; for all threads."""

    def __init__(self) -> None:
        self._peers: dict[int, str] = {}
        self._lock = threading.Lock()

    def __contains__(self, room: int) -> bool:
        """True until it has ended."""
        return room in self._peers

    def peer(self, room: int) -> str:
        """Empty for a room that is not open."""
        return self._peers.get(room, "")

    def add(self, room: int, peer: str) -> None:
        """It is open from now on."""
        with self._lock:
            self._peers[room] = peer

    def forget(self, room: int) -> None:
        """It has ended."""
        with self._lock:
            self._peers.pop(room, None)

    def clear(self) -> list[int]:
        """Forget all; which they were."""
        with self._lock:
            lost, self._peers = list(self._peers), {}
        return lost


class EngineReader:
    """Tells an engine what its sidecar says.

    Args:
        abort: Tells the sidecar that the engine cannot go on with a room.
    """

    def __init__(
        self,
        layout: KvLayout,
        events: EngineEvents,
        rooms: OpenRooms,
        abort: Callable[[int, str], None],
    ) -> None:
        self._layout = layout
        self._events = events
        self._rooms = rooms
        self._abort = abort

    def read_all(self, link: EngineLink) -> None:
        """Until the connection is gone, which raises UnavailableError."""
        while True:
            message, payload = link.socket.receive()
            try:
                self._dispatch(link, message, payload)
            except Exception:  # noqa: BLE001 - the engine's bug fails its room, not the link
                _log.exception("room %d: %s was not handled", message.room, message.kind.name)
                self._give_up(message.room, f"the engine failed on {message.kind.name}")

    def _dispatch(self, link: EngineLink, message: Message, payload: memoryview) -> None:
        room = message.room
        if message.kind is MessageKind.FREE:
            link.slots.give_back(message.slot)
        elif message.kind is MessageKind.PAGES and message.block is not None:
            self._take_pages(link, room, message.block, message.slot)
        elif room not in self._rooms and message.kind not in _UNASKED:
            return  # it ended here while the sidecar was still telling of it
        elif message.kind is MessageKind.AUX:
            self._events.on_aux(room, bytes(payload))
        elif message.kind is MessageKind.RESERVED:
            fields = unpack_json(payload)
            self._rooms.add(room, str(fields["peer"]))
            self._events.on_reserved(room, fields["page_count"])
        elif message.kind is MessageKind.COMMITTED:
            self._rooms.forget(room)
            self._events.on_committed(room)
        elif message.kind is MessageKind.FAILED:
            self._rooms.forget(room)
            self._events.on_failed(room, unpack_json(payload)["reason"])

    def _take_pages(self, link: EngineLink, room: int, block: Block, slot: int) -> None:
        """Decode: the slot goes back whatever becomes of its values."""
        try:
            if room in self._rooms:
                self._events.on_pages(room, block, link.values(self._layout, slot, block))
        finally:
            with contextlib.suppress(TransferError):  # the sidecar is gone, as the next read says
                link.socket.send(Message(MessageKind.FREE, slot=slot))

    def _give_up(self, room: int, reason: str) -> None:
        """Before the sidecar hears of it: it may have told already that the room is committed."""
        self._rooms.forget(room)
        self.tell_failed(room, reason)
        self._abort(room, reason)

    def tell_failed(self, room: int, reason: str) -> None:
        """The room is lost; an engine that fails on that keeps nobody else from going on."""
        try:
            self._events.on_failed(room, reason)
        except Exception:  # noqa: BLE001 - the other rooms must go on
            _log.exception("room %d: its failure was not handled", room)
