"""The thread that hears a sidecar, when that one is gone."""

from __future__ import annotations

import logging
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from kvlink_sides import LAYOUT, RecordingEngine

from thunderserve.core.errors import TransferError, UnavailableError
from thunderserve.kvlink.engine_reader import EngineReader, OpenRooms
from thunderserve.kvlink.protocol import Block
from thunderserve.kvlink.protocol.message import Message, MessageKind

ROOM, BLOCK = 7, Block(0, 1, 0, 2, 0, 1)


class LostLink:
    """Brought one block; the sidecar went away while the engine wrote it."""

    def __init__(self) -> None:
        self.socket = SimpleNamespace(receive=self._receive, send=self._send)
        self._messages = [Message(MessageKind.PAGES, ROOM, BLOCK)]

    def values(self, layout: Any, slot: int, block: Block) -> np.ndarray:
        """See `EngineLink`."""
        assert slot == 0
        return np.ones(block.shape(layout), np.uint16)

    def _receive(self) -> tuple[Message, memoryview]:
        if not self._messages:
            raise UnavailableError("gone")
        return self._messages.pop(), memoryview(b"")

    def _send(self, message: Message) -> None:
        assert message.kind is MessageKind.FREE
        raise TransferError("gone")


def test_link_is_lost_and_no_engine_blamed_when_the_sidecar_goes_amid_a_block(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The room fails with all others of the connection, for the reason that the read tells."""
    engine, rooms = RecordingEngine(LAYOUT), OpenRooms()
    engine.expect(ROOM, 1)
    rooms.add(ROOM, "peer")
    reader = EngineReader(LAYOUT, engine, rooms, abort=pytest.fail)

    with caplog.at_level(logging.WARNING), pytest.raises(UnavailableError, match="gone"):
        reader.read_all(LostLink())  # type: ignore[arg-type]  # in its place

    assert ROOM in rooms
    assert caplog.messages == []
