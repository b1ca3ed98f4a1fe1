"""A decode group: continuous batching over KV memory that was set aside before the cache came."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from thunderserve.control.planner.simulator.memory import KvMemory
from thunderserve.control.planner.simulator.runs import DecodeRuns

if TYPE_CHECKING:
    from collections.abc import Callable

    from thunderserve.control.planner.simulator.events import Timeline
    from thunderserve.control.planner.simulator.job import Job, Records
    from thunderserve.control.planner.simulator.timings import GroupTimings

__all__ = ["DecodeGroup"]


class DecodeGroup:
    """Decodes what prefill groups send it.

    Memory is set aside for prompt and answer together, first come, first served, so nothing that
    decodes is ever put off. Requests whose cache has arrived join between steps.
    """

    def __init__(
        self, timings: GroupTimings, timeline: Timeline, records: Records, *, max_running: int
    ) -> None:
        self.memory = KvMemory(timings.capacity_tokens())
        self.queued_tokens = 0
        self._max_running = max_running
        self._records = records
        self._runs = DecodeRuns(timings, timeline, self._step_ended)
        self._unreserved: deque[tuple[Job, Callable[[float], None]]] = deque()
        self._ready: deque[Job] = deque()

    @property
    def busy_s(self) -> float:
        """Time in which it decoded."""
        return self._runs.busy_s

    def reserve(self, now_s: float, job: Job, on_reserved: Callable[[float], None]) -> None:
        """Set memory aside, now or when there is room, and tell so."""
        self._unreserved.append((job, on_reserved))
        self._grant(now_s)

    def join(self, now_s: float, job: Job) -> None:
        """The cache is here: decode from the next step on."""
        if job.output_tokens == 1:  # prefill's token was all
            self._release(job)
            self._grant(now_s)
            return
        self._ready.append(job)
        if not self._runs.running:
            self._go_on(now_s)
        elif len(self._runs.batch) < self._max_running:
            self._runs.cut(now_s)

    def _grant(self, now_s: float) -> None:
        while self._unreserved and self.memory.try_take(self._unreserved[0][0].total_tokens):
            job, on_reserved = self._unreserved.popleft()
            job.reserved = True
            on_reserved(now_s)

    def _step_ended(self, now_s: float, complete: list[Job]) -> None:
        for job in complete:
            self._records.last_token(job, now_s)
            self._release(job)
        self._go_on(now_s)
        if complete:
            self._grant(now_s)

    def _go_on(self, now_s: float) -> None:
        batch = self._runs.batch
        while self._ready and len(batch) < self._max_running:
            batch.join(self._ready.popleft())
        if batch:
            self._runs.start(now_s)

    def _release(self, job: Job) -> None:
        self.queued_tokens -= job.total_tokens
        self.memory.give_back(job.total_tokens)
