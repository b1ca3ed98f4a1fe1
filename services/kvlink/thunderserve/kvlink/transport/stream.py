"""One connection: TLS, TCP or a Unix socket, on asyncio's or uvloop's event loop.

Bytes are received straight into the buffer of whoever reads; small reads (headers) come out of a
small look-ahead buffer. When nobody reads and that one is full, the socket is not read either, so
a slow reader slows the sender down and no memory grows.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from typing import TYPE_CHECKING, Any, Protocol, cast

from thunderserve.core.errors import UnavailableError

if TYPE_CHECKING:
    from collections.abc import Callable

    from thunderserve.kvlink.protocol.frame import Buffer

__all__ = ["ByteStream", "Stream", "StreamClosedError", "StreamStalledError", "split_address"]

_LOOK_AHEAD_BYTES = 64 * 1024
# So much is encrypted at once: it stays in the processor's cache, and waits as ciphertext.
_TLS_PIECE_BYTES = 256 * 1024


class StreamClosedError(UnavailableError):
    """The connection ended; `clean` is true when nothing was cut off by it."""

    def __init__(self, message: str, *, clean: bool = False) -> None:
        super().__init__(message)
        self.clean = clean


class StreamStalledError(UnavailableError):
    """The connection is open, and what is on its way does not come."""


class Stream(Protocol):
    """What carries frames; `ByteStream` and `RpcStream` are the two."""

    @property
    def closed(self) -> bool:
        """True once it has ended, on whichever side."""

    async def read_into(self, view: memoryview, stall_s: float | None = None) -> None:
        """Fill `view`; StreamClosedError when it ends first, StreamStalledError when it stops."""

    async def write(self, *buffers: Buffer) -> None:
        """Send; the buffers may be reused on return. StreamClosedError when it has ended."""

    def close(self) -> None:
        """End it at once; readers and writers fail."""

    def info(self, name: str) -> Any:
        """The transport's extra information, as asyncio names it; None when there is none."""


class ByteStream(asyncio.BufferedProtocol):
    """Exact reads and flow-controlled writes; one reader and one writer at a time."""

    def __init__(self, on_connect: Callable[[ByteStream], None] | None = None) -> None:
        self._on_connect = on_connect
        self._transport: asyncio.Transport | None = None
        self._ahead = memoryview(bytearray(_LOOK_AHEAD_BYTES))
        self._start = self._end = 0  # of the bytes that lie in `_ahead`
        self._target: memoryview | None = None
        self._readable: asyncio.Future[None] | None = None
        self._writable: asyncio.Future[None] | None = None
        self._blocked = self._paused = self._encrypted = False
        self._closed: str | None = None

    @property
    def closed(self) -> bool:
        """True once the connection has ended, on whichever side."""
        return self._closed is not None

    def info(self, name: str) -> Any:
        """The transport's extra information, as asyncio names it: `socket`, `peername`, ...

        None when there is none, or no connection yet.
        """
        return None if self._transport is None else self._transport.get_extra_info(name)

    async def read_some(self) -> bytes:
        """Whatever comes next, at least a byte.

        Raises:
            StreamClosedError: The connection has ended.
        """
        if self._start == self._end:
            if self._closed is not None:
                raise StreamClosedError(self._closed, clean=True)
            await self._wait_readable()
        taken = bytes(self._ahead[self._start : self._end])
        self._consume(len(taken))
        self._resume()
        return taken

    async def read_into(self, view: memoryview, stall_s: float | None = None) -> None:
        """Fill `view`.

        Args:
            view: The reader's memory; bytes are received straight into it.
            stall_s: Longest time without a byte; None waits for ever.

        Raises:
            StreamClosedError: The connection ended first; clean when not a byte of it came.
            StreamStalledError: Nothing came for `stall_s`.
        """
        taken = min(len(view), self._end - self._start)
        view[:taken] = self._ahead[self._start : self._start + taken]
        self._consume(taken)
        if taken == len(view):
            return
        if self._closed is not None:
            raise StreamClosedError(self._closed, clean=taken == 0)
        self._target = view[taken:]
        self._resume()
        try:
            await self._wait_filled(stall_s)
        except StreamClosedError as error:
            untouched = self._target is not None and len(self._target) == len(view)
            raise StreamClosedError(str(error), clean=untouched) from error
        finally:
            self._target = None

    async def write(self, *buffers: Buffer) -> None:
        """Send; on return every buffer has been handed to the system and may be reused.

        Raises:
            StreamClosedError: The connection has ended.
        """
        for buffer in buffers:
            if self._encrypted:
                await self._write_in_pieces(memoryview(buffer).cast("B"))
            else:
                self._write(buffer)
        await self._wait_writable()

    async def _write_in_pieces(self, view: memoryview) -> None:
        for start in range(0, len(view), _TLS_PIECE_BYTES):
            await self._wait_writable()
            self._write(view[start : start + _TLS_PIECE_BYTES])

    def _write(self, buffer: Buffer) -> None:
        if self._closed is not None or self._transport is None:
            raise StreamClosedError(self._closed or "the connection is not open")
        self._transport.write(buffer)

    async def _wait_writable(self) -> None:
        if self._blocked and self._closed is None:
            self._writable = asyncio.get_running_loop().create_future()
            try:
                await self._writable
            finally:
                self._writable = None
        if self._closed is not None:
            raise StreamClosedError(self._closed)

    def send_descriptor(self, data: bytes, descriptor: int) -> None:
        """Unix sockets: a few bytes with a file descriptor, before anything else is written.

        Raises:
            StreamClosedError: The connection has ended.
        """
        if self._closed is not None or self._transport is None:
            raise StreamClosedError(self._closed or "the connection is not open")
        # Neither event loop can: its socket is used beside it while nothing waits to be written.
        number = os.dup(self.info("socket").fileno())
        with socket.socket(fileno=number) as beside:
            try:
                sent = socket.send_fds(beside, [data], [descriptor])
            except OSError as error:
                raise StreamClosedError(f"the connection was lost: {error}") from error
        if sent != len(data):
            raise StreamClosedError(f"{sent} of {len(data)} bytes were taken")

    async def _wait_filled(self, stall_s: float | None) -> None:
        """Until the target is full, however long it takes while bytes come."""
        missing_bytes = 0
        while self._target is not None and missing_bytes != len(self._target):
            missing_bytes = len(self._target)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(stall_s):
                    await self._wait_readable()
        if self._target is not None:
            raise StreamStalledError(f"no byte came within {stall_s} s")

    async def _wait_readable(self) -> None:
        self._readable = asyncio.get_running_loop().create_future()
        try:
            await self._readable
        finally:
            self._readable = None

    def close(self) -> None:
        """End the connection at once; readers and writers fail."""
        self._end_with("the connection was closed")
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by the event loop."""
        self._transport = cast("asyncio.Transport", transport)
        self._encrypted = transport.get_extra_info("ssl_object") is not None
        # No byte may stay behind in the transport when `write` returns: its buffer is reused. What
        # TLS keeps is ciphertext of its own; its transports pause at the limit, others above it.
        self._transport.set_write_buffer_limits(high=1 if self._encrypted else 0)
        if self._on_connect is not None:
            self._on_connect(self)

    def get_buffer(self, sizehint: int) -> memoryview:
        """Called by the event loop: where the next bytes go."""
        del sizehint
        return self._ahead[self._end :] if self._target is None else self._target

    def buffer_updated(self, nbytes: int) -> None:
        """Called by the event loop: `nbytes` were put there."""
        if self._target is not None:
            self._target = self._target[nbytes:]
            if not self._target:
                self._target = None
                self._wake(self._readable)
            return
        self._end += nbytes
        self._wake(self._readable)
        if self._end == len(self._ahead) and self._transport is not None:
            self._paused = True
            self._transport.pause_reading()

    def eof_received(self) -> bool:
        """Called by the event loop: the peer will send no more."""
        self._end_with("the peer closed the connection")
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """Called by the event loop."""
        self._end_with(f"the connection was lost: {exc}" if exc else "the connection ended")

    def pause_writing(self) -> None:
        """Called by the event loop: bytes wait in the transport."""
        self._blocked = True

    def resume_writing(self) -> None:
        """Called by the event loop: they are gone."""
        self._blocked = False
        self._wake(self._writable)

    def _consume(self, count: int) -> None:
        self._start += count
        if self._start == self._end:
            self._start = self._end = 0

    def _resume(self) -> None:
        if self._paused and self._transport is not None:
            self._paused = False
            self._transport.resume_reading()

    def _end_with(self, reason: str) -> None:
        if self._closed is not None:
            return
        self._closed = reason
        if self._readable is not None and not self._readable.done():
            self._readable.set_exception(StreamClosedError(reason))
        self._wake(self._writable)

    @staticmethod
    def _wake(waiter: asyncio.Future[None] | None) -> None:
        if waiter is not None and not waiter.done():
            waiter.set_result(None)


def split_address(address: str) -> tuple[str, int]:
    """`host:port` to its two; raises ValueError for anything else."""
    host, _, port = address.rpartition(":")
    return host.strip("[]"), int(port)
