"""A port that hands connections on to another address, as a rented host's NAT does."""

from __future__ import annotations

import asyncio
import contextlib
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

_CHUNK_BYTES = 65536


@dataclass
class Forwarder:
    """Where it listens, and how many connections it has handed on."""

    address: str = ""
    connections: int = 0


@asynccontextmanager
async def forwarding_to(target: str) -> AsyncIterator[Forwarder]:
    """A forwarder on a free port of loopback.

    Args:
        target: `unix:path`, where nobody else can dial to.
    """
    forwarder, pipes = Forwarder(), set[asyncio.Task[None]]()

    async def hand_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        forwarder.connections += 1
        task = asyncio.current_task()
        assert task is not None
        pipes.add(task)
        inner = await asyncio.open_unix_connection(target.removeprefix("unix:"))
        try:
            await asyncio.gather(_pipe(reader, inner[1]), _pipe(inner[0], writer))
        finally:
            inner[1].close()
            writer.close()
            pipes.discard(task)

    server = await asyncio.start_server(hand_on, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    forwarder.address = f"{host}:{port}"
    try:
        yield forwarder
    finally:
        server.close()
        for task in tuple(pipes):
            task.cancel()
        await asyncio.gather(*pipes, return_exceptions=True)


async def _pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(_CHUNK_BYTES):
            writer.write(data)
            await writer.drain()
    with contextlib.suppress(OSError):
        writer.write_eof()
