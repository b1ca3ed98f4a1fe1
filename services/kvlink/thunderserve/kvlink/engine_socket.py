"""One connection of an engine's rank to its sidecar, and the memory that came with it."""

from __future__ import annotations

import os
import socket
import threading
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from thunderserve.core.errors import PreconditionError, TransferError, UnavailableError
from thunderserve.kvlink.protocol import FrameError
from thunderserve.kvlink.protocol.message import (
    MESSAGE_HEADER_BYTES,
    Message,
    MessageKind,
    decode_message_header,
    encode_message_header,
    pack_json,
    unpack_json,
)
from thunderserve.kvlink.slots import SharedSlots

if TYPE_CHECKING:
    from pathlib import Path

    from thunderserve.kvlink.protocol.frame import Buffer

__all__ = ["EngineSocket", "connect"]

_HANDSHAKE_TIMEOUT_S = 5.0


class EngineSocket:
    """Many threads may send, one receives; messages are never torn. Made by `connect`."""

    def __init__(self, connection: socket.socket, slots: SharedSlots) -> None:
        self.slots = slots
        self._socket = connection
        self._lock = threading.Lock()
        self._header = memoryview(bytearray(MESSAGE_HEADER_BYTES))

    def send(self, message: Message, payload: Buffer = b"") -> None:
        """Send one message.

        Raises:
            TransferError: The connection is gone.
        """
        with self._lock:
            try:
                _send(self._socket, message, payload)
            except OSError as error:
                raise TransferError(f"the kvlink sidecar went away: {error}") from error

    def receive(self) -> tuple[Message, memoryview]:
        """The next message and its payload.

        Raises:
            UnavailableError: The connection is gone.
        """
        try:
            _receive(self._socket, self._header)
            message = decode_message_header(self._header)
            return message, _payload(self._socket, message)
        except (OSError, EOFError, FrameError) as error:
            raise UnavailableError(str(error)) from error

    def shut(self) -> None:
        """End it; a blocked reader or sender returns with an error."""
        try:
            self._socket.shutdown(socket.SHUT_RDWR)
        except OSError:  # it was gone already
            return

    def close(self) -> None:
        """After `shut`, when nobody receives any more."""
        with self._lock:
            self._socket.close()


def connect(path: Path, hello: dict[str, Any]) -> EngineSocket:
    """Say HELLO and wait for WELCOME.

    Raises:
        UnavailableError: Nobody listens.
        PreconditionError: The sidecar refused this engine; says why.
    """
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.settimeout(_HANDSHAKE_TIMEOUT_S)
    try:
        connection.connect(str(path))
        _send(connection, Message(MessageKind.HELLO), pack_json(hello))
        slots = _welcome(connection)
    except (OSError, EOFError, FrameError, KeyError, ValueError) as error:
        connection.close()
        raise UnavailableError(str(error)) from error
    except PreconditionError:
        connection.close()
        raise
    connection.settimeout(None)
    return EngineSocket(connection, slots)


def _welcome(connection: socket.socket) -> SharedSlots:
    """The memory travels beside the first bytes of WELCOME."""
    header, descriptors, _, _ = socket.recv_fds(connection, MESSAGE_HEADER_BYTES, 1)
    try:
        rest = memoryview(bytearray(MESSAGE_HEADER_BYTES - len(header)))
        message = decode_message_header(header + _receive(connection, rest))
        fields = unpack_json(_payload(connection, message))
        if message.kind is not MessageKind.WELCOME:
            raise PreconditionError(f"the sidecar refused the engine: {fields.get('reason')}")
        if len(descriptors) != 1:
            raise FrameError("the sidecar's WELCOME came without memory")
        return SharedSlots(descriptors[0], int(fields["slot_count"]), int(fields["slot_bytes"]))
    finally:
        for descriptor in descriptors:
            os.close(descriptor)


def _payload(connection: socket.socket, message: Message) -> memoryview:
    return _receive(connection, memoryview(bytearray(message.payload_bytes)))


def _send(connection: socket.socket, message: Message, payload: Buffer) -> None:
    header = encode_message_header(replace(message, payload_bytes=memoryview(payload).nbytes))
    connection.sendall(b"".join((header, payload)))


def _receive(connection: socket.socket, view: memoryview) -> memoryview:
    filled = 0
    while filled < len(view):
        count = connection.recv_into(view[filled:])
        if count == 0:
            raise EOFError("the sidecar closed the connection")
        filled += count
    return view
