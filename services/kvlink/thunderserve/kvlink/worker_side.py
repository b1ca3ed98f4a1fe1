"""What a worker process uses of the sidecar beside it."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING

from thunderserve.kvlink.engine_port import EnginePort
from thunderserve.kvlink.local_client import LocalClient

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

__all__ = ["KvlinkSidecar"]


class KvlinkSidecar:
    """Makes the sidecar's clients from a worker's configuration."""

    @contextlib.asynccontextmanager
    async def link(self, local_address: str) -> AsyncIterator[LocalClient]:
        """Announce transfers and hear what they took."""
        client = LocalClient(local_address)
        try:
            yield client
        finally:
            await client.close()

    def port(self, engine_socket: str) -> EnginePort:
        """Send and receive KV bytes, for an engine that has no plugin."""
        return EnginePort(Path(engine_socket))
