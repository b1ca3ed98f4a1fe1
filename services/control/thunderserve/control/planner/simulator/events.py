"""What happens next: a queue of moments."""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable

__all__ = ["Action", "Timeline"]

Action = Callable[[float], None]


class Timeline:
    """Actions in the order of their moments; of equal ones, in the order they were planned."""

    def __init__(self) -> None:
        self._queue: list[tuple[float, int, Action]] = []
        self._planned = 0

    @property
    def next_s(self) -> float:
        """The next moment; infinity when nothing is planned."""
        return self._queue[0][0] if self._queue else math.inf

    @property
    def pending(self) -> bool:
        """True while something is planned."""
        return bool(self._queue)

    def at(self, moment_s: float, action: Action) -> None:
        """Plan an action, which is told its moment."""
        self._planned += 1
        heapq.heappush(self._queue, (moment_s, self._planned, action))

    def run_next(self) -> None:
        """Do what is next."""
        moment_s, _, action = heapq.heappop(self._queue)
        action(moment_s)
