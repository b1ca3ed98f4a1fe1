"""Something on a connection's way that can hold its bytes back."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

from thunderserve.kvlink.links import BULK_PROTOCOL

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Gate"]


class Gate:
    """Stands before a sidecar's port and can hold all frames back; control calls pass."""

    def __init__(self, upstream_port: int) -> None:
        self._upstream_port = upstream_port
        self._open = asyncio.Event()
        self._open.set()

    async def listen(self, port: int) -> None:
        """Take the connections meant for the sidecar."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", port)

    @contextlib.contextmanager
    def closed(self) -> Iterator[None]:
        """No frame passes until the block ends."""
        self._open.clear()
        yield
        self._open.set()

    def close(self) -> None:
        """Take no more connections."""
        self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        back, upstream = await asyncio.open_connection("127.0.0.1", self._upstream_port)
        hello = await reader.read(65536)
        carries_frames = BULK_PROTOCOL.encode() in hello  # TLS says what for before it encrypts
        upstream.write(hello)
        await asyncio.gather(
            self._pump(reader, upstream, held=carries_frames),
            self._pump(back, writer, held=carries_frames),
        )

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, held: bool
    ) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(65536):
                if held:
                    await self._open.wait()
                writer.write(data)
                await writer.drain()
        writer.close()
