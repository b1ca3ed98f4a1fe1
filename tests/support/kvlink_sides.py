"""Sidecars in this process and engines over real sockets, without SGLang."""

from __future__ import annotations

import asyncio
import socket
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from identities import issue

from thunderserve.core.kv import KvLayout
from thunderserve.kvlink.bootstrap import serve
from thunderserve.kvlink.codec.float16 import from_float32
from thunderserve.kvlink.config import KvlinkConfig
from thunderserve.kvlink.engine_client import EngineClient
from thunderserve.kvlink.local_client import LocalClient

if TYPE_CHECKING:
    from pathlib import Path

    from thunderserve.core.plan import Phase

__all__ = ["LAYOUT", "RecordingEngine", "Side", "free_port", "random_cache", "start_side"]

LAYOUT = KvLayout("tiny", 3, 2, 64, 4, "bfloat16")


def random_cache(layout: KvLayout, page_count: int, seed: int = 0) -> np.ndarray:
    """A cache with outlier key channels of constant sign, as real ones have."""
    rng = np.random.default_rng(seed)
    shape = layout.block_shape(layout.layer_count, page_count)
    channel = (layout.layer_count, 2, 1, 1, *shape[4:])
    scale = np.exp(rng.normal(0, 0.5, channel))
    values = rng.normal(size=shape) * scale + rng.normal(0, 1, channel)
    values[:, 0, ..., ::20] += 20 * scale[:, 0, ..., ::20]
    return from_float32(values.astype(np.float32), layout.dtype)


class RecordingEngine:
    """Keeps what the sidecar told; decode engines write pages into `caches`."""

    def __init__(self, layout: KvLayout) -> None:
        self.layout = layout
        self.caches: dict[int, np.ndarray] = {}
        self.aux: dict[int, bytes] = {}
        self.page_counts: dict[int, int] = {}
        self.outcome: dict[int, str] = {}
        self._changed = threading.Condition()

    def expect(self, room: int, page_count: int) -> None:
        """Make memory ready for a room."""
        shape = self.layout.block_shape(self.layout.layer_count, page_count)
        self.caches[room] = np.zeros(shape, np.uint16)

    def on_reserved(self, room: int, page_count: int) -> None:
        """See `EngineEvents`."""
        self._tell(self.page_counts, room, page_count)

    def on_pages(self, room: int, block: Any, values: np.ndarray) -> None:
        """See `EngineEvents`."""
        self.caches[room][block.slices()] = values

    def on_aux(self, room: int, aux: bytes) -> None:
        """See `EngineEvents`."""
        self.aux[room] = aux

    def on_committed(self, room: int) -> None:
        """See `EngineEvents`."""
        self._tell(self.outcome, room, "committed")

    def on_failed(self, room: int, reason: str) -> None:
        """See `EngineEvents`."""
        self._tell(self.outcome, room, reason)

    async def wait_reserved(self, room: int) -> int:
        """The page count that the decode side asked for."""
        return await asyncio.to_thread(self._wait, self.page_counts, room)

    async def wait_ended(self, room: int) -> str:
        """`committed`, or why not."""
        return await asyncio.to_thread(self._wait, self.outcome, room)

    def _tell(self, book: dict[int, Any], room: int, value: object) -> None:
        with self._changed:
            book[room] = value
            self._changed.notify_all()

    def _wait(self, book: dict[int, Any], room: int) -> Any:
        with self._changed:
            assert self._changed.wait_for(lambda: room in book, timeout=10), f"room {room}"
            return book[room]


@dataclass
class Side:
    """One group: sidecar, worker's client, engine."""

    config: KvlinkConfig
    stopping: asyncio.Event
    task: asyncio.Task[None]
    worker: LocalClient
    engine: RecordingEngine
    client: EngineClient

    async def stop(self) -> None:
        """End engine, worker and sidecar."""
        await asyncio.to_thread(self.client.close)
        await self.worker.close()
        self.stopping.set()
        await self.task


def free_port() -> int:
    """Free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def start_side(folder: Path, phase: Phase, layout: KvLayout, **settings: Any) -> Side:
    """A sidecar with a registered engine."""
    own = {
        "address": f"127.0.0.1:{free_port()}",
        "local_address": f"unix:{folder / 'local'}",
        "engine_socket": folder / "engine",
        "identity": issue(folder / "identity"),
    }
    config = KvlinkConfig(**own | settings)
    stopping = asyncio.Event()
    task = asyncio.create_task(serve(config, stopping))
    engine = RecordingEngine(layout)
    client = EngineClient(config.engine_socket, layout, phase, engine)
    try:
        while not (config.local_socket.exists() or task.done()):  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0.002)  # the client would try again much later
        await asyncio.to_thread(client.start)
    except BaseException:
        stopping.set()
        await task
        raise
    return Side(config, stopping, task, LocalClient(config.local_address), engine, client)
