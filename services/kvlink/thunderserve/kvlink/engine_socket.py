"""One blocking connection of an engine to its sidecar."""

from __future__ import annotations

import socket
import threading
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

if TYPE_CHECKING:
    from pathlib import Path

    from thunderserve.kvlink.protocol.frame import Buffer

__all__ = ["EngineSocket"]

_HANDSHAKE_TIMEOUT_S = 5.0
_MAX_ANSWER_BYTES = 64 * 1024


class EngineSocket:
    """Many threads may send, one receives; messages are never torn."""

    def __init__(self, path: Path, hello: dict[str, Any]) -> None:
        self._path = path
        self._hello = hello
        self._socket: socket.socket | None = None
        self._lock = threading.Lock()
        self._closed = False
        self._buffer = bytearray()
        self.max_payload_bytes = _MAX_ANSWER_BYTES

    def ensure_connected(self) -> None:
        """Connect unless it is connected already."""
        if self._socket is None:
            self.connect()

    def connect(self) -> None:
        """Say HELLO and wait for WELCOME.

        Raises:
            UnavailableError: Nobody listens.
            PreconditionError: The sidecar refused this engine; says why.
        """
        with self._lock:
            if self._closed:
                raise UnavailableError("the connection was closed")
            if self._socket is not None:
                return  # another thread was faster
            connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            connection.settimeout(_HANDSHAKE_TIMEOUT_S)
            try:
                connection.connect(str(self._path))
                _send(connection, Message(MessageKind.HELLO), pack_json(self._hello))
                self._welcome(connection)
            except (OSError, EOFError, FrameError) as error:
                connection.close()
                raise UnavailableError(str(error)) from error
            except PreconditionError:
                connection.close()
                raise
            connection.settimeout(None)
            self._socket = connection

    def send(self, message: Message, payload: Buffer = b"") -> None:
        """Send one message.

        Raises:
            TransferError: The connection is gone.
        """
        with self._lock:
            if self._socket is None:
                raise TransferError("the kvlink sidecar is away")
            try:
                _send(self._socket, message, payload)
            except OSError as error:
                self._drop()
                raise TransferError(f"the kvlink sidecar went away: {error}") from error

    def receive(self) -> tuple[Message, memoryview]:
        """The next message; its payload is valid until the next call.

        Raises:
            UnavailableError: The connection is gone.
        """
        connection = self._socket
        if connection is None:
            raise UnavailableError("not connected")
        try:
            header = _receive(connection, memoryview(bytearray(MESSAGE_HEADER_BYTES)))
            message = decode_message_header(header, self.max_payload_bytes)
            if len(self._buffer) < message.payload_bytes:
                self._buffer = bytearray(message.payload_bytes)
            return message, _receive(connection, memoryview(self._buffer)[: message.payload_bytes])
        except (OSError, EOFError, FrameError) as error:
            raise UnavailableError(str(error)) from error

    def disconnect(self) -> None:
        """Drop the connection; `connect` makes another."""
        # Without the lock: a sender that blocks inside of it must be woken by this.
        connection = self._socket
        if connection is not None:
            _shut(connection)
        with self._lock:
            self._drop()

    def close(self) -> None:
        """Drop it for good; a blocked reader or sender returns with an error."""
        self._closed = True
        self.disconnect()

    def _welcome(self, connection: socket.socket) -> None:
        header = _receive(connection, memoryview(bytearray(MESSAGE_HEADER_BYTES)))
        message = decode_message_header(header, _MAX_ANSWER_BYTES)
        fields = unpack_json(_receive(connection, memoryview(bytearray(message.payload_bytes))))
        if message.kind is not MessageKind.WELCOME:
            raise PreconditionError(f"the sidecar refused the engine: {fields.get('reason')}")
        self.max_payload_bytes = int(fields["max_payload_bytes"])

    def _drop(self) -> None:
        if self._socket is not None:
            _shut(self._socket)
            self._socket.close()
            self._socket = None


def _send(connection: socket.socket, message: Message, payload: Buffer) -> None:
    view = memoryview(payload).cast("B")
    header = encode_message_header(
        Message(message.kind, message.room, message.block, payload_bytes=view.nbytes)
    )
    sent = connection.sendmsg([header, view])
    if sent < len(header):
        connection.sendall(header[sent:])
        sent = len(header)
    connection.sendall(view[sent - len(header) :])


def _receive(connection: socket.socket, view: memoryview) -> memoryview:
    filled = 0
    while filled < len(view):
        count = connection.recv_into(view[filled:])
        if count == 0:
            raise EOFError("the sidecar closed the connection")
        filled += count
    return view


def _shut(connection: socket.socket) -> None:
    try:
        connection.shutdown(socket.SHUT_RDWR)
    except OSError:  # it was gone already
        return
