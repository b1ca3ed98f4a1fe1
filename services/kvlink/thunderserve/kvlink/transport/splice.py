"""Two connections that become one."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

from thunderserve.core.errors import UnavailableError
from thunderserve.kvlink.transport.stream import ByteStream, StreamClosedError

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["splice"]


async def splice(stream: ByteStream, path: Path) -> None:
    """Carry bytes between a connection and the Unix socket at `path` until either end closes.

    Raises:
        UnavailableError: Nobody listens there.
    """
    loop = asyncio.get_running_loop()
    try:
        _, inner = await loop.create_unix_connection(ByteStream, str(path))
    except OSError as error:
        raise UnavailableError(f"nobody listens on {path}: {error}") from error
    pumps = [loop.create_task(_pump(stream, inner)), loop.create_task(_pump(inner, stream))]
    try:
        await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
    finally:
        inner.close()
        stream.close()
        await asyncio.gather(*pumps)


async def _pump(source: ByteStream, sink: ByteStream) -> None:
    with contextlib.suppress(StreamClosedError):
        while True:
            await sink.write(await source.read_some())
