"""A prefill group: prompts in order, chunk by chunk, through a pipeline of stages."""

from __future__ import annotations

from collections import deque
from functools import partial
from typing import TYPE_CHECKING

from thunderserve.control.planner.simulator.memory import KvMemory
from thunderserve.control.planner.simulator.passes import Pass, take

if TYPE_CHECKING:
    from thunderserve.control.planner.simulator.events import Timeline
    from thunderserve.control.planner.simulator.job import Job, OnChunk, Records
    from thunderserve.control.planner.simulator.timings import GroupTimings

__all__ = ["PrefillGroup"]


class PrefillGroup:
    """Computes prompts, the oldest first; the next pass enters when the first stage is free.

    A prompt's memory is set aside when it starts, and given back when its cache has arrived.
    """

    def __init__(
        self, timings: GroupTimings, timeline: Timeline, records: Records, *, chunk_tokens: int
    ) -> None:
        self.memory = KvMemory(timings.capacity_tokens(chunk_tokens))
        self.queued_tokens = 0
        self._timings = timings
        self._chunk_tokens = chunk_tokens
        self._timeline = timeline
        self._records = records
        self._waiting: deque[Job] = deque()
        self._stage_free_s = [0.0] * timings.stages
        self._stage_busy_s = [0.0] * timings.stages

    @property
    def busy_s(self) -> float:
        """Time in which the busiest stage computed."""
        return max(self._stage_busy_s)

    def enqueue(self, now_s: float, job: Job, on_chunk: OnChunk) -> None:
        """Compute this prompt after those before it, and tell of every chunk that is ready."""
        job.on_chunk = on_chunk
        self._waiting.append(job)
        self._start_next(now_s)

    def release(self, now_s: float, job: Job) -> None:
        """The cache has arrived where it belongs; forget it here."""
        self.memory.give_back(job.prompt_tokens)
        self._start_next(now_s)

    def _start_next(self, now_s: float) -> None:
        if not self._waiting or self._stage_free_s[0] > now_s:
            return
        filled = take(self._waiting, self._chunk_tokens, whole=False, admit=self._admit)
        if filled is None:
            return
        times = self._timings.stages_s(filled.work)
        at_s = now_s
        for stage, (time_s, hop_s) in enumerate(times):
            at_s = max(at_s, self._stage_free_s[stage]) + time_s
            self._stage_free_s[stage] = at_s
            self._stage_busy_s[stage] += time_s
            at_s += hop_s
        self._timeline.at(at_s, partial(self._finish, filled))
        if len(times) > 1:
            self._timeline.at(self._stage_free_s[0], self._start_next)

    def _admit(self, job: Job) -> bool:
        return self.memory.try_take(job.prompt_tokens)

    def _finish(self, done: Pass, now_s: float) -> None:
        for job, tokens, last in done.pieces:
            self.queued_tokens -= tokens
            if last:
                self._records.first_token(job, now_s)
            if job.on_chunk is not None:
                job.on_chunk(now_s, job, tokens)
        self._start_next(now_s)
