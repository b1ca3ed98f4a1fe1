"""The HTTP server's sockets."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest
import uvloop
from starlette.responses import JSONResponse

from thunderserve.core.errors import ConfigError, UnavailableError
from thunderserve.router.http_server import serve_http

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.types import Receive, Scope, Send


async def delays_of_this_connection(scope: Scope, receive: Receive, send: Send) -> None:
    """An application that answers whether its own sockets wait to fill a packet."""
    await JSONResponse(_delays(scope["server"][1]))(scope, receive, send)


def _delays(port: int) -> list[bool]:
    found = []
    for entry in Path("/proc/self/fd").iterdir():
        try:
            connection = socket.fromfd(int(entry.name), socket.AF_INET, socket.SOCK_STREAM)
        except OSError:
            continue
        with connection:
            if _is_accepted(connection, port):
                found.append(not connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
    return found


def _is_accepted(connection: socket.socket, port: int) -> bool:
    try:
        return bool(connection.getpeername()) and connection.getsockname()[1] == port
    except (OSError, IndexError):
        return False


@pytest.mark.parametrize("new_loop", [asyncio.new_event_loop, uvloop.new_event_loop])
async def test_server_sends_small_pieces_at_once(
    new_loop: Callable[[], asyncio.AbstractEventLoop],
) -> None:
    """Else every token could wait 40 ms for the client's delayed acknowledgement."""

    async def ask() -> list[bool]:
        server = serve_http(delays_of_this_connection, "127.0.0.1:0", 1.0)
        async with server as address, httpx.AsyncClient() as client:
            return (await client.get(f"http://{address}/")).json()

    def run() -> list[bool]:
        with asyncio.Runner(loop_factory=new_loop) as runner:
            return runner.run(ask())

    assert await asyncio.to_thread(run) == [False]


@pytest.mark.parametrize("address", ["nonsense", "127.0.0.1:port", ":"])
async def test_server_refuses_when_the_address_is_none(address: str) -> None:
    """The configuration's mistake, by its name."""
    with pytest.raises(ConfigError, match="http_address"):
        async with serve_http(delays_of_this_connection, address, 1.0):
            pass


async def test_server_says_so_when_the_port_is_taken() -> None:
    """And leaves no socket behind."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(UnavailableError, match=f"cannot listen on {address}"):
            async with serve_http(delays_of_this_connection, address, 1.0):
                pass
