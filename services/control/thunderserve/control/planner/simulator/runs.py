"""Runs of decode steps: one event for many steps, cut short when somebody waits to join."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from thunderserve.control.planner.simulator.batch import DecodeBatch
from thunderserve.control.planner.simulator.steps import Steps

if TYPE_CHECKING:
    from collections.abc import Callable

    from thunderserve.control.planner.simulator.events import Timeline
    from thunderserve.control.planner.simulator.job import Job
    from thunderserve.control.planner.simulator.timings import GroupTimings

__all__ = ["DecodeRuns"]


class DecodeRuns:
    """Lets a batch decode until an answer is complete, or until the end of the present step.

    Attributes:
        batch: What decodes.
        busy_s: Time of all runs that have ended.
        running: True between the start and the end of a run.

    Args:
        timings: Of the group.
        timeline: Where the ends of runs are planned.
        on_end: Told that a run has ended, and whose answers are complete.
    """

    def __init__(
        self,
        timings: GroupTimings,
        timeline: Timeline,
        on_end: Callable[[float, list[Job]], None],
    ) -> None:
        self.batch = DecodeBatch(timings)
        self.busy_s = 0.0
        self.running = False
        self._timeline = timeline
        self._on_end = on_end
        self._steps = Steps((), 0.0)
        self._start_s = 0.0
        self._count = 0
        self._plans = 0
        self._cut = False

    def start(self, now_s: float) -> None:
        """Decode until the first of the batch is complete."""
        self._steps, self._start_s = self.batch.steps(), now_s
        self.running, self._cut = True, False
        self._plan(self.batch.steps_to_next_end)

    def cut(self, now_s: float) -> None:
        """End with the step that is running now."""
        if self._cut or not self.running:
            return
        self._cut = True
        count = self._steps.count_within(now_s - self._start_s)
        if count < self._count:
            self._plan(count)

    def _plan(self, count: int) -> None:
        self._count = count
        self._plans += 1
        end_s = self._start_s + self._steps.duration_s(count)
        self._timeline.at(end_s, partial(self._end, self._plans))

    def _end(self, plan: int, now_s: float) -> None:
        if plan != self._plans:
            return  # the run was cut short since
        self.running = False
        self.busy_s += now_s - self._start_s
        self._on_end(now_s, self.batch.advance(self._count))
