"""A group that does both phases: prompts and answers share its passes."""

from __future__ import annotations

import math
from collections import deque
from functools import partial
from typing import TYPE_CHECKING

from thunderserve.control.planner.simulator.memory import KvMemory
from thunderserve.control.planner.simulator.passes import Pass, take
from thunderserve.control.planner.simulator.policy import ColocatedBatching
from thunderserve.control.planner.simulator.runs import DecodeRuns
from thunderserve.core.cost import Work

if TYPE_CHECKING:
    from thunderserve.control.planner.simulator.events import Timeline
    from thunderserve.control.planner.simulator.job import Job, Records
    from thunderserve.control.planner.simulator.timings import GroupTimings

__all__ = ["ColocatedGroup"]


class ColocatedGroup:
    """Rounds: one pass per pipeline stage, so that all stages have work.

    CHUNKED: every round gives each decoding request a token, and pieces of prompts fill its passes
    up to the chunk. PREFILL_FIRST: while a prompt can start, rounds hold whole prompts alone.
    Memory is set aside for prompt and answer together when a prompt starts.
    """

    def __init__(
        self,
        timings: GroupTimings,
        timeline: Timeline,
        records: Records,
        *,
        chunk_tokens: int,
        max_running: int,
        batching: ColocatedBatching,
    ) -> None:
        self.memory = KvMemory(timings.capacity_tokens(chunk_tokens))
        self.queued_tokens = 0
        self._timings = timings
        self._chunk_tokens = chunk_tokens
        self._max_running = max_running
        self._prefill_first = batching is ColocatedBatching.PREFILL_FIRST
        self._timeline = timeline
        self._records = records
        self._runs = DecodeRuns(timings, timeline, self._steps_ended)
        self._waiting: deque[Job] = deque()
        self._prefilling = 0
        self._in_round = False
        self._rounds_s = 0.0

    @property
    def busy_s(self) -> float:
        """Time in which it computed."""
        return self._runs.busy_s + self._rounds_s

    def enqueue(self, now_s: float, job: Job) -> None:
        """Serve this request after those before it."""
        self._waiting.append(job)
        if self._runs.running:
            if len(self._waiting) == 1:  # else the first waits for an end, which comes anyway
                self._runs.cut(now_s)
        elif not self._in_round:
            self._go_on(now_s)

    def _steps_ended(self, now_s: float, complete: list[Job]) -> None:
        self._complete(complete, now_s)
        self._go_on(now_s)

    def _go_on(self, now_s: float) -> None:
        passes = self._next_passes()
        if passes:
            duration_s = self._timings.round_s(self._works(passes))
            self._in_round = True
            self._rounds_s += duration_s
            self._timeline.at(now_s + duration_s, partial(self._round_ended, passes))
        elif self._runs.batch:
            self._runs.start(now_s)

    def _next_passes(self) -> list[Pass]:
        budget = self._chunk_tokens
        if not self._prefill_first:
            budget = max(1, budget - math.ceil(len(self._runs.batch) / self._timings.stages))
        passes: list[Pass] = []
        while len(passes) < self._timings.stages:
            filled = take(self._waiting, budget, whole=self._prefill_first, admit=self._admit)
            if filled is None:
                break
            passes.append(filled)
        return passes

    def _admit(self, job: Job) -> bool:
        if len(self._runs.batch) + self._prefilling >= self._max_running:
            return False
        admitted = self.memory.try_take(job.total_tokens)
        self._prefilling += admitted
        return admitted

    def _works(self, passes: list[Pass]) -> list[Work]:
        """The passes' prompts, and a micro-batch of the decoding requests in each."""
        works = [each.work for each in passes]
        batch = self._runs.batch
        if self._prefill_first or not batch:
            return works
        parts = min(len(batch), self._timings.stages)
        part = Work.of_decode(len(batch) / parts, batch.mean_context)
        works += [Work(0, 0)] * (parts - len(works))
        return [work + part if at < parts else work for at, work in enumerate(works)]

    def _round_ended(self, passes: list[Pass], now_s: float) -> None:
        self._in_round = False
        if not self._prefill_first and self._runs.batch:
            self._complete(self._runs.batch.advance(1), now_s)
        for job in (job for each in passes for job, _, last in each.pieces if last):
            self._prefilling -= 1
            self._records.first_token(job, now_s)
            if job.output_tokens == 1:
                self._release(job)
            else:
                self._runs.batch.join(job)
        self._go_on(now_s)

    def _complete(self, jobs: list[Job], now_s: float) -> None:
        for job in jobs:
            self._records.last_token(job, now_s)
            self._release(job)

    def _release(self, job: Job) -> None:
        self.queued_tokens -= job.total_tokens
        self.memory.give_back(job.total_tokens)
