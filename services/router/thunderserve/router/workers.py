"""Clients of the workers in the plan: one channel per process, closed when it leaves."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from thunderserve.runtime.channel import open_channel
from thunderserve.runtime.worker_legs import WorkerLegs

if TYPE_CHECKING:
    from collections.abc import Collection

    import grpc

    from thunderserve.core.fleet import Worker

__all__ = ["WorkerClients"]

_Process = tuple[str, str]


class WorkerClients:
    """Channels by address and process: a restarted worker gets a new one at once.

    Args:
        drain_s: How long requests may go on with a worker that left the plan.
    """

    def __init__(self, drain_s: float) -> None:
        self._drain_s = drain_s
        self._open: dict[_Process, tuple[grpc.aio.Channel, WorkerLegs]] = {}
        self._closing: set[asyncio.Task[None]] = set()

    def legs_of(self, worker: Worker) -> WorkerLegs:
        """The client of a worker; it connects at the first call."""
        process = _process(worker)
        if process not in self._open:
            channel = open_channel(worker.address)
            self._open[process] = (channel, WorkerLegs(channel))
        return self._open[process][1]

    def keep(self, workers: Collection[Worker]) -> None:
        """Connect to these, and close all other channels once their requests have ended."""
        for worker in workers:
            self.legs_of(worker)
            channel, _ = self._open[_process(worker)]
            channel.get_state(try_to_connect=True)  # so that no request waits for it
        gone = self._open.keys() - {_process(worker) for worker in workers}
        for process in gone:
            task = asyncio.create_task(self._close_when_idle(*self._open.pop(process)))
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)

    async def close(self) -> None:
        """Close every channel now; requests still running end with an error."""
        for task in self._closing:
            task.cancel()
        await asyncio.gather(*self._closing, return_exceptions=True)
        for channel, _ in self._open.values():
            await channel.close(None)
        self._open.clear()

    async def _close_when_idle(self, channel: grpc.aio.Channel, legs: WorkerLegs) -> None:
        # gRPC's own grace finds only calls that a task awaits directly, and ours are wrapped.
        try:
            async with asyncio.timeout(self._drain_s):
                await legs.wait_idle()
        except TimeoutError:
            pass
        finally:
            await channel.close(None)


def _process(worker: Worker) -> _Process:
    return worker.address, worker.instance_id
