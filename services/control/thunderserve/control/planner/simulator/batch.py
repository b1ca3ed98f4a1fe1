"""Requests that decode together; many steps are one event."""

from __future__ import annotations

import heapq
from typing import TYPE_CHECKING

from thunderserve.control.planner.simulator.steps import Steps

if TYPE_CHECKING:
    from thunderserve.control.planner.simulator.job import Job
    from thunderserve.control.planner.simulator.timings import GroupTimings

__all__ = ["DecodeBatch"]


class DecodeBatch:
    """A continuous batch: requests join and leave between steps, each step gives each a token.

    A step finds as context the prompt and all tokens before the one that it computes.
    """

    def __init__(self, timings: GroupTimings) -> None:
        self._timings = timings
        self._steps_done = 0
        self._context_tokens = 0
        self._ends: list[tuple[int, int, Job]] = []

    def __len__(self) -> int:
        return len(self._ends)

    @property
    def mean_context(self) -> float:
        """Tokens that the next step finds, per request."""
        return self._context_tokens / len(self._ends)

    @property
    def steps_to_next_end(self) -> int:
        """Steps until the first of them is complete."""
        return self._ends[0][0] - self._steps_done

    def steps(self) -> Steps:
        """The steps from now on while nobody joins or leaves."""
        return Steps(self._timings.decode_lines(len(self._ends)), self.mean_context)

    def join(self, job: Job) -> None:
        """Decode from its second token on."""
        end = self._steps_done + job.output_tokens - 1
        heapq.heappush(self._ends, (end, job.index, job))
        self._context_tokens += job.prompt_tokens + 1

    def advance(self, count: int) -> list[Job]:
        """Do that many steps, at most until the first end; returns whose answers are complete."""
        self._steps_done += count
        self._context_tokens += count * len(self._ends)
        complete: list[Job] = []
        while self._ends and self._ends[0][0] == self._steps_done:
            job = heapq.heappop(self._ends)[2]
            self._context_tokens -= job.total_tokens
            complete.append(job)
        return complete
