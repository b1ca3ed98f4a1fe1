"""A decode engine that fetches caches for a while and says how fast they came.

    python -m thunderserve.cli.bench.decode JSON

It speaks the engines' protocol and stores what comes, as an engine does; the rooms are announced
to both sidecars, as workers do. The last line that it writes is a `Delivery`.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from thunderserve.core.errors import TransferError
from thunderserve.core.kv import KvLayout
from thunderserve.core.plan import Phase
from thunderserve.core.request import WireMode
from thunderserve.kvlink.engine_client import EngineClient
from thunderserve.kvlink.local_client import LocalClient

if TYPE_CHECKING:
    from collections.abc import Sequence

    from thunderserve.kvlink.protocol import Block

__all__ = ["Delivery", "Job", "main"]


@dataclass(frozen=True, slots=True)
class Job:
    """What to fetch.

    Attributes:
        socket: The engine socket of the decode side's sidecar.
        sidecars: `unix:/path` of both sidecars' LocalService: prefill side, decode side.
        peer: The prefill side's sidecar, as the decode side's reaches it.
        layout: A `KvLayout`'s fields.
        mode: Wire mode.
        seconds: For which rooms are begun.
        least_rooms: But at least so many.
        in_flight: Rooms at once.
        page_count: Of every room.
        first_room: Rooms count up from it.
    """

    socket: str
    sidecars: tuple[str, ...]
    peer: str
    layout: dict[str, Any]
    mode: str
    seconds: float
    least_rooms: int
    in_flight: int
    page_count: int
    first_room: int


@dataclass(frozen=True, slots=True)
class Delivery:
    """What came between the first room's request and the last room's end."""

    rooms: int
    raw_bytes: int
    wire_bytes: int
    seconds: float

    @property
    def raw_bytes_per_s(self) -> float:
        """16-bit values that the engine got."""
        return self.raw_bytes / self.seconds

    @property
    def wire_bytes_per_s(self) -> float:
        """Frames, as the sidecars count them: what TCP, IP and TLS add is not in it."""
        return self.wire_bytes / self.seconds


class DecodeEngine:
    """Has memory for as many rooms as are in flight, and stores what comes."""

    def __init__(self, layout: KvLayout, in_flight: int, page_count: int) -> None:
        shape = layout.block_shape(layout.layer_count, page_count)
        self._loop = asyncio.get_running_loop()
        self._free = [np.zeros(shape, np.uint16) for _ in range(in_flight)]
        self._caches: dict[int, np.ndarray] = {}
        self._ended: dict[int, asyncio.Future[str]] = {}

    def expect(self, room: int) -> asyncio.Future[str]:
        """Memory for a room; the future is why it failed, or empty."""
        self._caches[room] = self._free.pop()
        self._ended[room] = self._loop.create_future()
        return self._ended[room]

    def let_go(self, room: int) -> None:
        """The room's memory is free again."""
        self._free.append(self._caches.pop(room))
        del self._ended[room]

    def on_reserved(self, room: int, page_count: int) -> None:
        """See `EngineEvents`; a decode engine is told of none."""

    def on_pages(self, room: int, block: Block, values: np.ndarray) -> None:
        """See `EngineEvents`."""
        self._caches[room][block.slices()] = values

    def on_aux(self, room: int, aux: bytes) -> None:
        """See `EngineEvents`."""

    def on_committed(self, room: int) -> None:
        """See `EngineEvents`."""
        self._loop.call_soon_threadsafe(self._ended[room].set_result, "")

    def on_failed(self, room: int, reason: str) -> None:
        """See `EngineEvents`."""
        self._loop.call_soon_threadsafe(self._ended[room].set_result, reason)


async def deliver(job: Job) -> Delivery:
    """Fetch rooms until the time is over; TransferError when one fails."""
    layout = KvLayout(**job.layout)
    engine = DecodeEngine(layout, job.in_flight, job.page_count)
    client = EngineClient(Path(job.socket), layout, Phase.DECODE, engine)
    await asyncio.to_thread(client.start)
    workers = [LocalClient(address) for address in job.sidecars]
    fetch = Fetch(job, engine, client, workers)
    try:
        return await fetch.run()
    finally:
        await asyncio.to_thread(client.close)
        for worker in workers:
            await worker.close()


class Fetch:
    """The rooms of a job."""

    def __init__(
        self, job: Job, engine: DecodeEngine, client: EngineClient, workers: list[LocalClient]
    ) -> None:
        self._job, self._engine, self._client, self._workers = job, engine, client, workers
        self._numbers = itertools.count(job.first_room)
        self._done = self._raw_bytes = self._wire_bytes = 0
        self._begun_s = 0.0

    async def run(self) -> Delivery:
        """All of them."""
        self._begun_s = time.monotonic()
        await asyncio.gather(*(self._lane() for _ in range(self._job.in_flight)))
        seconds = time.monotonic() - self._begun_s
        return Delivery(self._done, self._raw_bytes, self._wire_bytes, seconds)

    async def _lane(self) -> None:
        """One room after the other."""
        job = self._job
        while time.monotonic() - self._begun_s < job.seconds or self._done < job.least_rooms:
            await self._fetch(next(self._numbers))

    async def _fetch(self, room: int) -> None:
        job, ended = self._job, self._engine.expect(room)
        for worker in self._workers:
            await worker.announce(room, WireMode(job.mode))
        self._client.reserve(room, job.peer, job.page_count)
        if reason := await ended:
            raise TransferError(reason)
        self._engine.let_go(room)
        report = await self._workers[-1].report(room)
        self._done += 1
        self._raw_bytes += report.raw_bytes
        self._wire_bytes += report.wire_bytes


def main(argv: Sequence[str]) -> int:
    """Do one job."""
    job = Job(**json.loads(argv[0]))
    print(json.dumps(asdict(asyncio.run(deliver(job)))))  # noqa: T201 - its parent reads it
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
