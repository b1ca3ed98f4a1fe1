"""The HTTP server, in the router's own event loop."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from typing import TYPE_CHECKING

import uvicorn

from thunderserve.core.errors import ConfigError, UnavailableError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from starlette.types import ASGIApp

__all__ = ["serve_http"]

BACKLOG = 1024


class _Server(uvicorn.Server):
    """Leaves signals alone: they belong to the process, not to one of its servers."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Capture none."""
        yield


@contextlib.asynccontextmanager
async def serve_http(app: ASGIApp, address: str, drain_s: float) -> AsyncIterator[str]:
    """Serve while the block runs, then let running requests finish for `drain_s`.

    Yields:
        `host:port` as bound, which tells the port when port 0 was asked for.

    Raises:
        ConfigError: `address` is not `host:port`.
        UnavailableError: It cannot be bound.
    """
    listener = _listen(address)
    host, port = listener.getsockname()[:2]
    config = uvicorn.Config(
        app,
        lifespan="off",
        ws="none",
        http="httptools",
        log_config=None,
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=max(1, round(drain_s)),
    )
    config.load()
    server = _Server(config)
    serving = asyncio.create_task(server.serve(sockets=[listener]), name="http")
    try:
        yield f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    finally:
        server.should_exit = True
        await serving


def _listen(address: str) -> socket.socket:
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal():
        raise ConfigError(
            f"http_address is {address!r}; it must be host:port", param="http_address"
        )
    host = host.strip("[]")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # asyncio sets TCP_NODELAY only where the protocol is named, not left to its default.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, int(port)))
    except (OSError, OverflowError) as error:
        listener.close()
        raise UnavailableError(f"cannot listen on {address}: {error}") from error
    listener.listen(BACKLOG)
    return listener
