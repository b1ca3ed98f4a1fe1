"""Lets a queue's work happen in time, and tells every request what has become of it."""

from __future__ import annotations

import asyncio
import contextlib
import math
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Iterator

    from thunderserve.engine.emulated.clock import EmulatedClock
    from thunderserve.engine.emulated.job import Job, Progress

__all__ = ["Driver", "Schedule"]


class Schedule(Protocol):
    """Work that happens at moments."""

    @property
    def next_s(self) -> float:
        """When something happens next; infinity when there is no work."""

    def advance(self, now_s: float) -> list[Progress]:
        """What has happened until now, in order."""

    def drop(self, job: Job) -> None:
        """Forget a job."""


class Driver:
    """Advances a schedule while it has work.

    Moments are the schedule's own: a look that comes late finds all that has happened by then, so
    lateness does not add up.

    Args:
        schedule: The work; nobody else advances it.
        clock: Tells when.
        interval_s: Real seconds from one look to the next, at least: what happens faster is told
            together.
    """

    def __init__(
        self, schedule: Schedule, clock: EmulatedClock, *, interval_s: float = 0.0
    ) -> None:
        self._schedule = schedule
        self._clock = clock
        self._interval_s = interval_s
        self._inboxes: dict[Job, asyncio.Queue[Progress]] = {}
        self._changed = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    @contextlib.contextmanager
    def watching(self, job: Job) -> Iterator[AsyncGenerator[Progress, None]]:
        """What becomes of a job while the block runs; at its end the job is dropped."""
        inbox = self._inboxes[job] = asyncio.Queue()
        try:
            yield _read(inbox)
        finally:
            del self._inboxes[job]
            self._schedule.drop(job)

    def submit(self, job: Job, add: Callable[[Job], None]) -> None:
        """Add a job to the schedule now."""
        self._look()  # what has happened before, happened without it
        job.ready_s = self._clock.now_s()
        add(job)
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._run(), name="emulated-engine")
        self._changed.set()

    async def stop(self) -> None:
        """End; nothing happens any more."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        while (moment_s := self._schedule.next_s) < math.inf:
            self._changed.clear()
            await self._clock.sleep_until(moment_s, self._changed)
            if not self._changed.is_set():
                self._look()
                await asyncio.sleep(self._interval_s)

    def _look(self) -> None:
        for progress in self._schedule.advance(self._clock.now_s()):
            if (inbox := self._inboxes.get(progress.job)) is not None:
                inbox.put_nowait(progress)


async def _read(inbox: asyncio.Queue[Progress]) -> AsyncGenerator[Progress, None]:
    while True:
        yield await inbox.get()
