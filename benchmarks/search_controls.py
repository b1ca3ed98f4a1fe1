"""What the tabu search is compared with, on the same states and the same flows.

Each takes a start, neighbours and a score, and goes on until `enough`; what it has seen last is of
no interest, as the caller remembers the best score.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

from thunderserve.control.planner.search import Layout, tabu_search
from thunderserve.core.draws import Draws

if TYPE_CHECKING:
    from collections.abc import Mapping


WIDTH, TENURE, LEASH, PATIENCE, WALK = 12, 50, 5, 60, 12
HOTTEST, COLDEST = 0.05, 0.0005


@dataclass(frozen=True, slots=True)
class Task:
    """A search.

    Attributes:
        starts: The most promising first.
        spent: Share of the evaluations that were made.
    """

    starts: list[Layout]
    neighbours: Callable[[Layout], list[Layout]]
    score: Callable[[Layout], float]
    spent: Callable[[], float]
    draws: Draws

    def enough(self) -> bool:
        """Nothing is left to spend."""
        return self.spent() >= 1


def tabu(task: Task) -> None:
    """The product's."""
    tabu_search(
        task.starts[0],
        task.neighbours,
        task.score,
        width=WIDTH,
        tenure=TENURE,
        leash=LEASH,
        patience=PATIENCE,
        enough=task.enough,
    )


def greedy(task: Task) -> None:
    """Steepest ascent from the best start, until no neighbour is better."""
    _ascend(task, task.starts[0], patience=1)


def stubborn(task: Task) -> None:
    """The same, but where it ends it draws other neighbours, until all is spent."""
    _ascend(task, task.starts[0], patience=PATIENCE)


def random_restart(task: Task) -> None:
    """Steepest ascent from random states, one after another."""
    while not task.enough():
        state = task.draws.pick(task.starts)
        for _ in range(WALK):
            state = task.draws.pick(task.neighbours(state) or [state])
        _ascend(task, state, patience=3)


def _ascend(task: Task, state: Layout, *, patience: int) -> None:
    stale = idle = 0
    while stale < patience and idle < patience and not task.enough():
        before = task.spent()
        around = list(islice(task.neighbours(state), WIDTH))
        best = max(around, key=task.score, default=state)
        idle = idle + 1 if task.spent() == before else 0
        stale += 1
        if task.score(best) > task.score(state):
            state, stale = best, 0
        if idle > TENURE:
            return


def annealing(task: Task) -> None:
    """One random neighbour at a time; taken when it is better, or by chance while it is hot."""
    state = task.starts[0]
    unit = task.score(state)
    idle = 0
    while idle < TENURE * WIDTH and not task.enough():
        before = task.spent()
        other = task.draws.pick(task.neighbours(state)[:WIDTH] or [state])
        heat = unit * HOTTEST * (COLDEST / HOTTEST) ** task.spent()
        gain = task.score(other) - task.score(state)
        if gain >= 0 or task.draws.uniform() < math.exp(gain / heat):
            state = other
        idle = idle + 1 if task.spent() == before else 0


METHODS: Mapping[str, Callable[[Task], None]] = {
    "tabu": tabu,
    "greedy": greedy,
    "stubborn": stubborn,
    "random_restart": random_restart,
    "annealing": annealing,
}
