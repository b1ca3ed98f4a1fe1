"""Frames through one gRPC call, where only gRPC gets through; the same interface as `ByteStream`.

Messages are bytes as they are: no protobuf around them, so none is copied into a field and out
again. How the bytes are cut into messages means nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

import grpc

from thunderserve.core.errors import UnavailableError
from thunderserve.kvlink.transport.stream import StreamClosedError, StreamStalledError
from thunderserve.runtime.channel import open_channel

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

    from thunderserve.core.identity import Role
    from thunderserve.kvlink.protocol.frame import Buffer
    from thunderserve.runtime.identity import Credentials

    _Context = grpc.aio.ServicerContext[Any, Any]

__all__ = ["RpcStream", "add_frames_to_server", "dial_rpc"]

_SERVICE, _METHOD = "thunderserve.api.kvlink.v1.FrameService", "Carry"
_MESSAGE_BYTES = 1024 * 1024


class RpcStream:
    """Exact reads and flow-controlled writes; one reader and one writer at a time.

    Args:
        receive: The next message, or gRPC's EOF.
        send: Takes a message; waits while the peer is slow.
        end: Ends the call.
    """

    def __init__(
        self,
        receive: Callable[[], Awaitable[Any]],
        send: Callable[[bytes], Awaitable[None]],
        end: Callable[[], object],
    ) -> None:
        self._receive, self._send, self._end = receive, send, end
        self._ahead = memoryview(b"")
        self._closed: str | None = None

    @property
    def closed(self) -> bool:
        """True once the call has ended, on whichever side."""
        return self._closed is not None

    def info(self, name: str) -> None:
        """None: gRPC keeps its sockets to itself."""
        del name

    async def read_into(self, view: memoryview, stall_s: float | None = None) -> None:
        """See `ByteStream`."""
        filled = 0
        while filled < len(view):
            if not self._ahead:
                self._ahead = memoryview(await self._next(stall_s, clean=filled == 0))
            taken = min(len(view) - filled, len(self._ahead))
            view[filled : filled + taken] = self._ahead[:taken]
            self._ahead = self._ahead[taken:]
            filled += taken

    async def write(self, *buffers: Buffer) -> None:
        """See `ByteStream`."""
        for buffer in buffers:
            view = memoryview(buffer).cast("B")
            for start in range(0, len(view), _MESSAGE_BYTES):
                message = bytes(view[start : start + _MESSAGE_BYTES])
                with self._ending():
                    await self._send(message)

    def close(self) -> None:
        """End the call at once; readers and writers fail."""
        self._close("the connection was closed")

    async def _next(self, stall_s: float | None, *, clean: bool) -> bytes:
        try:
            async with asyncio.timeout(stall_s):
                with self._ending():
                    message = await self._receive()
        except TimeoutError:
            raise StreamStalledError(f"no byte came within {stall_s} s") from None
        if message is grpc.aio.EOF:
            self._close("the peer closed the connection")
            raise StreamClosedError("the peer closed the connection", clean=clean)
        return bytes(message)

    @contextlib.contextmanager
    def _ending(self) -> Iterator[None]:
        """Whatever a call's end looks like, it is StreamClosedError."""
        if self._closed is not None:
            raise StreamClosedError(self._closed)
        try:
            yield
        except grpc.aio.AioRpcError as error:
            self._close(f"the connection was lost: {error.details()}")
        except (grpc.aio.BaseError, asyncio.InvalidStateError) as error:
            self._close(f"the connection ended: {error}")
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise  # the caller was cancelled, not the call
            self._close("the peer ended the call")
        if self._closed is not None:
            raise StreamClosedError(self._closed)

    def _close(self, reason: str) -> None:
        if self._closed is None:
            self._closed = reason
            self._end()


def add_frames_to_server(
    server: grpc.aio.Server, handler: Callable[[RpcStream], Awaitable[None]]
) -> None:
    """Serve calls that carry frames with `handler`."""

    async def carry(requests: AsyncIterator[bytes], context: _Context) -> AsyncIterator[bytes]:
        call = asyncio.current_task()
        assert call is not None  # noqa: S101 - gRPC runs every handler in a task
        stream = RpcStream(lambda: anext(requests, grpc.aio.EOF), context.write, call.cancel)
        # In a task of its own: a peer that goes away cancels the call, and the handler has to hear
        # of that as of any connection that ends.
        work = _spawn(handler(stream))
        await asyncio.shield(work)
        return
        yield b""  # what makes it a stream; replies are written as they come

    method: grpc.RpcMethodHandler[bytes, bytes] = grpc.stream_stream_rpc_method_handler(carry)
    service = grpc.method_handlers_generic_handler(_SERVICE, {_METHOD: method})
    server.add_generic_rpc_handlers((service,))


async def dial_rpc(
    address: str, credentials: Credentials, role: Role, timeout_s: float
) -> RpcStream:
    """Open a call on a connection of its own and make sure of the peer's role.

    Raises:
        UnavailableError: Nobody serves it there, not in time, or not with a certificate that we
            accept.
    """
    channel = open_channel(
        address,
        credentials.channel_credentials(),
        ssl_target_name_override=credentials.server_name(role),
    )
    call: grpc.aio.StreamStreamCall[bytes, bytes] = channel.stream_stream(
        f"/{_SERVICE}/{_METHOD}"
    )()
    try:
        async with asyncio.timeout(timeout_s):
            await call.wait_for_connection()
    except (grpc.aio.AioRpcError, TimeoutError) as error:
        reason = error.details() if isinstance(error, grpc.aio.AioRpcError) else "timeout"
        _spawn(channel.close())
        raise UnavailableError(f"cannot connect to {address}: {reason}") from error
    return RpcStream(call.read, call.write, lambda: _spawn(channel.close()))


def _spawn(work: Awaitable[None]) -> asyncio.Future[None]:
    task = asyncio.ensure_future(work)
    _tasks.add(task)
    task.add_done_callback(_tasks.discard)
    return task


_tasks: set[asyncio.Future[None]] = set()  # the loop itself keeps none
