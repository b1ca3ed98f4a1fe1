"""A decoding engine: rounds that give every running request a token, prompts riding along."""

from __future__ import annotations

import contextlib
import math
from collections import deque
from typing import TYPE_CHECKING

from thunderserve.engine.emulated.job import Progress
from thunderserve.engine.emulated.passes import Pass, next_pass

if TYPE_CHECKING:
    from thunderserve.engine.emulated.job import Job
    from thunderserve.engine.emulated.times import EmulatedTimes

__all__ = ["Rounds"]


class Rounds:
    """Continuous batching: requests join and leave between rounds.

    A decode group's requests `join` when their cache is there; a colocated group's prompts are
    `enqueue`d, and chunks of them fill the rounds. It knows no clock: `advance` says what has
    happened until now.
    """

    def __init__(self, times: EmulatedTimes, *, chunk_tokens: int, max_running: int) -> None:
        self._times = times
        self._chunk_tokens = chunk_tokens
        self._max_running = max_running
        self._waiting: deque[Job] = deque()
        self._joining: deque[Job] = deque()
        self._batch: list[Job] = []
        self._context_tokens = 0
        self._passes: list[Pass] = []
        self._end_s = math.inf

    @property
    def next_s(self) -> float:
        """When something happens next; infinity when there is no work."""
        if self._end_s < math.inf:
            return self._end_s
        queues = (self._waiting, self._joining)
        return min(queue[0].ready_s if queue else math.inf for queue in queues)

    def enqueue(self, job: Job) -> None:
        """Compute this prompt after those before it, then its answer."""
        self._waiting.append(job)

    def join(self, job: Job) -> None:
        """Decode from the second token on."""
        self._joining.append(job)

    def drop(self, job: Job) -> None:
        """Forget a job; a pass over its prompt goes on."""
        for queue in (self._waiting, self._joining):
            with contextlib.suppress(ValueError):
                queue.remove(job)
        if job in self._batch:
            self._leave(job)
        # A prompt in the running round is not to join the batch at its end.
        job.output_tokens = job.produced_tokens

    def advance(self, now_s: float) -> list[Progress]:
        """What has happened until now, in order."""
        happened: list[Progress] = []
        while (at_s := self.next_s) <= now_s:
            if self._end_s < math.inf:
                happened += self._end_round(at_s)
            self._start_round(at_s)
        return happened

    def _start_round(self, now_s: float) -> None:
        while self._joining and self._joining[0].ready_s <= now_s and self._has_room:
            self._enter(self._joining.popleft())
        self._passes = self._next_passes(now_s)
        if self._batch or self._passes:
            batch = len(self._batch)
            context = self._context_tokens / batch if batch else 0.0
            works = [each.work for each in self._passes]
            self._end_s = now_s + self._times.round_s(works, batch, context)

    def _next_passes(self, now_s: float) -> list[Pass]:
        stages = self._times.stages
        budget = max(1, self._chunk_tokens - math.ceil(len(self._batch) / stages))
        passes: list[Pass] = []
        while len(passes) < stages and self._has_room:
            filled = next_pass(self._waiting, budget, now_s)
            if filled is None:
                break
            passes.append(filled)
        return passes

    def _end_round(self, now_s: float) -> list[Progress]:
        self._end_s = math.inf
        happened: list[Progress] = []
        for job in tuple(self._batch):
            job.produced_tokens += 1
            happened.append(Progress(job, now_s, 0, 1))
        self._context_tokens += len(self._batch)
        for job in [job for job in self._batch if job.produced_tokens >= job.output_tokens]:
            self._leave(job)
        for ended in self._passes:
            happened += ended.progress(now_s)
            for job, _, last in ended.pieces:
                if last and job.produced_tokens < job.output_tokens:
                    self._enter(job)
        self._passes = []
        return happened

    @property
    def _has_room(self) -> bool:
        return len(self._batch) < self._max_running

    def _enter(self, job: Job) -> None:
        self._batch.append(job)
        self._context_tokens += job.prompt_tokens + job.produced_tokens

    def _leave(self, job: Job) -> None:
        self._batch.remove(job)
        self._context_tokens -= job.prompt_tokens + job.produced_tokens
