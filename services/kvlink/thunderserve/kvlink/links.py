"""Bulk connections of the sending side; each carries one room at a time."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING

from thunderserve.core.identity import Role
from thunderserve.kvlink.protocol import PROTOCOL_VERSION
from thunderserve.kvlink.transport import Stream, dial, dial_rpc

if TYPE_CHECKING:
    from collections.abc import Callable

    from thunderserve.runtime.identity import Credentials

__all__ = ["BULK_PROTOCOL", "Bulk", "Links"]

# ALPN's name for frames.
BULK_PROTOCOL = f"thunderserve-kvlink/{PROTOCOL_VERSION}"

_CONNECT_TIMEOUT_S = 5.0
_MAX_IDLE = 4
_MAX_IDLE_S = 30.0


class Bulk(StrEnum):
    """How frames travel from a sidecar; it takes them in either way."""

    TCP = "tcp"
    GRPC = "grpc"


class Links:
    """Keeps a few idle connections to each peer, so that rooms need no handshake.

    Args:
        credentials: This sidecar's.
        bulk: How frames travel.
        clock: Seconds that only grow.
    """

    def __init__(self, credentials: Credentials, bulk: Bulk, clock: Callable[[], float]) -> None:
        self._credentials = credentials
        self._bulk = bulk
        self._clock = clock
        self._idle: dict[str, list[tuple[Stream, float]]] = {}

    async def acquire(self, address: str) -> Stream:
        """A connection to `host:port`; raises UnavailableError when there is none to be had."""
        idle = self._idle.get(address, [])
        while idle:
            stream, since_s = idle.pop()
            if not stream.closed and self._clock() - since_s < _MAX_IDLE_S:
                return stream
            stream.close()
        self._idle.pop(address, None)
        return await self._dial(address)

    async def _dial(self, address: str) -> Stream:
        if self._bulk is Bulk.GRPC:
            return await dial_rpc(address, self._credentials, Role.KVLINK, _CONNECT_TIMEOUT_S)
        return await dial(
            address, self._credentials, Role.KVLINK, BULK_PROTOCOL, _CONNECT_TIMEOUT_S
        )

    def release(self, address: str, stream: Stream) -> None:
        """Give a connection back whose room has been committed."""
        idle = self._idle.setdefault(address, [])
        if stream.closed or len(idle) >= _MAX_IDLE:
            stream.close()
        else:
            idle.append((stream, self._clock()))

    def close(self) -> None:
        """Close the idle ones."""
        for idle in self._idle.values():
            for stream, _ in idle:
                stream.close()
        self._idle.clear()
