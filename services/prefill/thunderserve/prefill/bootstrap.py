"""Wires a prefill worker: the shared worker, with the sidecar's clients."""

from __future__ import annotations

from typing import TYPE_CHECKING

from thunderserve.engine.worker.bootstrap import serve_worker
from thunderserve.kvlink.worker_side import KvlinkSidecar

if TYPE_CHECKING:
    import asyncio

    from thunderserve.prefill.config import PrefillConfig

__all__ = ["serve"]


async def serve(config: PrefillConfig, stopping: asyncio.Event) -> None:
    """Serve until `stopping` is set or the engine is lost; see `serve_worker`."""
    await serve_worker(config, stopping, KvlinkSidecar())
