"""A proxy that does to each bulk connection what a bad network does.

It ends TLS on both sides, so that the bytes it counts and changes are the frames', and what arrives
has passed TLS: the frames' own checks must find it. Control connections pass as they are.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import struct
from collections import deque
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from identities import SERVER_NAME

from thunderserve.kvlink.links import BULK_PROTOCOL
from thunderserve.runtime.identity import Credentials

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

__all__ = ["Cut", "Direction", "Fault", "FaultProxy"]

_CHUNK_BYTES = 65536
_FOREVER = 1 << 62
_RESET = struct.pack("ii", 1, 0)  # SO_LINGER: closing discards and resets


class Cut(StrEnum):
    """How a connection ends."""

    RST = "rst"
    FIN = "fin"
    BLACKHOLE = "blackhole"


class Direction(StrEnum):
    """Which bytes a fault counts: those to the listener behind the proxy, or those back."""

    FORTH = "forth"
    BACK = "back"


@dataclass(frozen=True)
class Fault:
    """What happens to one connection; the default is nothing.

    Attributes:
        cut: How it ends when the byte at `at_byte` comes; those before it are delivered.
        flip_bit: The bit that arrives inverted: eight times the byte's offset, plus 0 to 7.
        piece_bytes: Bytes handed on at once.
        bytes_per_s: Of `direction`, from `at_byte` on; 0 for no limit.
    """

    cut: Cut | None = None
    at_byte: int = 0
    flip_bit: int | None = None
    piece_bytes: int = _CHUNK_BYTES
    bytes_per_s: float = 0.0
    direction: Direction = Direction.FORTH


class FaultProxy:
    """Forwards to `127.0.0.1:upstream_port`; every new bulk connection takes the next fault.

    Args:
        upstream_port: The sidecar's.
        identity: Folder of a certificate of its role; None leaves TLS as it is, so that faults
            count and change ciphertext, from behind the first bytes of the handshake on.
    """

    def __init__(self, upstream_port: int, identity: Path | None) -> None:
        self._upstream_port = upstream_port
        self._credentials = None if identity is None else Credentials(identity)
        self._faults: deque[Fault] = deque()
        self._connections: set[asyncio.Task[None]] = set()
        self._control: set[asyncio.Task[None]] = set()
        self._forgotten = asyncio.Event()
        self.connection_count = 0

    async def listen(self, port: int) -> None:
        """Take the connections meant for the listener."""
        context = self._credentials and self._credentials.server_context(BULK_PROTOCOL, "h2")
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", port, ssl=context)

    def expect(self, faults: Iterable[Fault]) -> None:
        """What the next connections suffer, in order."""
        self._faults = deque(faults)

    async def reset(self) -> None:
        """End all bulk connections, so that the next transfers open new ones."""
        self._faults.clear()
        await _end(self._connections)

    def forget_connections(self) -> None:
        """What a NAT does to idle ones: nothing passes any more, and nobody is told."""
        self._forgotten.set()
        self._forgotten = asyncio.Event()

    async def close(self) -> None:
        """Take no more connections."""
        self._server.close()
        await self.reset()
        await _end(self._control)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        protocol, hello = await self._meet(reader, writer)
        fault, tasks = Fault(), self._control
        if protocol == BULK_PROTOCOL:
            self.connection_count += 1
            fault = self._faults.popleft() if self._faults else Fault()
            tasks = self._connections
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        upstream: asyncio.StreamWriter | None = None
        try:
            back, upstream = await self._dial(protocol)
            upstream.write(hello)
            ends = (writer, upstream)
            forth = _Pump(reader, upstream, ends, fault, Direction.FORTH, forgotten=self._forgotten)
            backward = _Pump(back, writer, ends, fault, Direction.BACK, forgotten=self._forgotten)
            await asyncio.gather(forth.run(), backward.run())
        except (ConnectionError, ssl.SSLError, asyncio.CancelledError):
            pass
        finally:
            tasks.discard(task)
            writer.transport.abort()
            if upstream is not None:
                upstream.transport.abort()

    async def _meet(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> tuple[str, bytes]:
        """What a connection is for, and what had to be read to know."""
        if self._credentials is not None:
            return writer.get_extra_info("ssl_object").selected_alpn_protocol(), b""
        hello = await reader.read(_CHUNK_BYTES)  # names the protocol before it encrypts
        return BULK_PROTOCOL if BULK_PROTOCOL.encode() in hello else "h2", hello

    async def _dial(self, protocol: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        host, port = "127.0.0.1", self._upstream_port
        if self._credentials is None:
            return await asyncio.open_connection(host, port)
        context = self._credentials.client_context(protocol)
        return await asyncio.open_connection(host, port, ssl=context, server_hostname=SERVER_NAME)


class _Pump:
    """One direction of a connection."""

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        ends: tuple[asyncio.StreamWriter, ...],
        fault: Fault,
        direction: Direction,
        *,
        forgotten: asyncio.Event,
    ) -> None:
        self._reader, self._writer, self._ends = reader, writer, ends
        self._fault = fault if fault.direction is direction else Fault()
        self._forgotten = forgotten
        self._passed_bytes = 0
        raw = writer.get_extra_info("socket")
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    async def run(self) -> None:
        while data := await self._reader.read(self._fault.piece_bytes):
            if self._forgotten.is_set():
                await _for_ever()
            left = self._left_bytes()
            self._writer.write(self._flipped(data[:left]))
            await self._writer.drain()
            self._passed_bytes += len(data)
            if self._fault.cut is not None and len(data) > left:
                await self._cut(self._fault.cut)
                return
            await self._slow_down(len(data))
        with contextlib.suppress(OSError):
            self._writer.close()  # TLS knows no half of a connection

    def _left_bytes(self) -> int:
        """Until the cut."""
        return _FOREVER if self._fault.cut is None else self._fault.at_byte - self._passed_bytes

    async def _slow_down(self, count: int) -> None:
        if self._fault.bytes_per_s and self._passed_bytes > self._fault.at_byte:
            await asyncio.sleep(count / self._fault.bytes_per_s)

    def _flipped(self, data: bytes) -> bytes:
        bit = self._fault.flip_bit
        if bit is None or not 0 <= (at := bit // 8 - self._passed_bytes) < len(data):
            return data
        flipped = bytearray(data)
        flipped[at] ^= 1 << bit % 8
        return bytes(flipped)

    async def _cut(self, cut: Cut) -> None:
        if cut is Cut.BLACKHOLE:
            await _for_ever()
        for end in self._ends:
            if cut is Cut.RST:
                raw = end.get_extra_info("socket")
                raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
                end.transport.abort()
            else:
                end.close()


async def _end(tasks: set[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def _for_ever() -> None:
    await asyncio.Event().wait()
