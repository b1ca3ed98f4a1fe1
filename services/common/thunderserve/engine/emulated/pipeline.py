"""A prefill engine: prompts in order, chunk by chunk, through a pipeline of stages."""

from __future__ import annotations

import contextlib
import math
from collections import deque
from typing import TYPE_CHECKING

from thunderserve.engine.emulated.passes import Pass, next_pass

if TYPE_CHECKING:
    from thunderserve.engine.emulated.job import Job, Progress
    from thunderserve.engine.emulated.times import EmulatedTimes

__all__ = ["PrefillPipeline"]


class PrefillPipeline:
    """Computes prompts; the next pass enters when the first stage is free.

    It knows no clock: `advance` says what has happened until now.
    """

    def __init__(self, times: EmulatedTimes, *, chunk_tokens: int) -> None:
        self._times = times
        self._chunk_tokens = chunk_tokens
        self._waiting: deque[Job] = deque()
        self._running: deque[tuple[float, Pass]] = deque()
        self._free_s = [-math.inf] * times.stages

    @property
    def next_s(self) -> float:
        """When something happens next; infinity when there is no work."""
        return min(self._next_start_s, self._next_end_s)

    def enqueue(self, job: Job) -> None:
        """Compute this prompt after those before it."""
        self._waiting.append(job)

    def drop(self, job: Job) -> None:
        """Forget a job; the pass that it is in goes on."""
        with contextlib.suppress(ValueError):
            self._waiting.remove(job)

    def advance(self, now_s: float) -> list[Progress]:
        """What has happened until now, in order."""
        happened: list[Progress] = []
        while self.next_s <= now_s:
            if self._next_end_s <= self._next_start_s:
                end_s, ended = self._running.popleft()
                happened += ended.progress(end_s)
            else:
                self._start(self._next_start_s)
        return happened

    @property
    def _next_start_s(self) -> float:
        return max(self._free_s[0], self._waiting[0].ready_s) if self._waiting else math.inf

    @property
    def _next_end_s(self) -> float:
        return self._running[0][0] if self._running else math.inf

    def _start(self, now_s: float) -> None:
        filled = next_pass(self._waiting, self._chunk_tokens, now_s)
        assert filled is not None  # noqa: S101 - somebody waits, and has come
        at_s = now_s
        for stage, (time_s, hop_s) in enumerate(self._times.prefill_s(filled.work)):
            at_s = max(at_s, self._free_s[stage]) + time_s
            self._free_s[stage] = at_s
            at_s += hop_s
        self._running.append((at_s, filled))
