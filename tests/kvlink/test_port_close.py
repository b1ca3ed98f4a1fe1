"""Whoever listens and closes leaves no connection behind."""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING

from identities import issue
from kvlink_sides import free_port

from thunderserve.core.identity import Role
from thunderserve.kvlink.transport import ByteStream, Listener, TlsPort
from thunderserve.runtime.identity import Credentials

if TYPE_CHECKING:
    from pathlib import Path

WAIT_S = 10.0


async def nothing(stream: ByteStream) -> None:
    """No connection comes as far as this."""
    raise AssertionError(stream)


async def test_connection_is_closed_when_the_port_closes_just_after_it_was_accepted(
    tmp_path: Path,
) -> None:
    """Its task is cancelled before it began, and nobody else knows of the socket."""
    number = free_port()
    port = TlsPort(Credentials(issue(tmp_path / "port")), (Role.KVLINK,), {"frames": nothing})
    await port.listen(f"127.0.0.1:{number}")
    with socket.create_connection(("127.0.0.1", number), WAIT_S) as peer:
        async with asyncio.timeout(WAIT_S):
            while not port._handshakes:  # noqa: ASYNC110 - until the task is there, no longer
                await asyncio.sleep(0)
        await port.close()

        assert await asyncio.to_thread(peer.recv, 1) == b""


async def test_connection_is_closed_when_the_listener_closes_just_after_it_was_accepted(
    tmp_path: Path,
) -> None:
    """The same on an engine's socket."""
    listener = Listener(nothing)
    await listener.listen_unix(tmp_path / "engine")
    with socket.socket(socket.AF_UNIX) as peer:
        peer.settimeout(WAIT_S)
        peer.connect(str(tmp_path / "engine"))
        async with asyncio.timeout(WAIT_S):
            while not listener._tasks:  # noqa: ASYNC110 - until the task is there, no longer
                await asyncio.sleep(0)
        await listener.close()

        assert await asyncio.to_thread(peer.recv, 1) == b""
