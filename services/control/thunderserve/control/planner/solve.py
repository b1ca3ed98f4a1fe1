"""The planner's entry: a problem in, a plan out."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from thunderserve.control.planner.assembly import plan_of
from thunderserve.control.planner.evaluate import Assessment, Evaluator, Seat
from thunderserve.control.planner.moves import neighbour
from thunderserve.control.planner.parallelism import Parallelism
from thunderserve.control.planner.partition import Bins, Part, Partition
from thunderserve.control.planner.starts import starting_partitions
from thunderserve.control.planner.tabu import tabu_search
from thunderserve.core.draws import Draws
from thunderserve.core.errors import InvalidArgumentError
from thunderserve.core.plan import Phase

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from thunderserve.control.planner.problem import Problem
    from thunderserve.core.plan import Plan

__all__ = ["SearchSettings", "solve"]

_START_HASTES = 3
_PHASE_ORDER = (Phase.PREFILL, Phase.DECODE, Phase.COLOCATED)


@dataclass(frozen=True, slots=True)
class SearchSettings:
    """How hard to search.

    Attributes:
        neighbours: Moves that are tried from every state.
        tenure: States that stay forbidden.
        patience: Iterations without a better state before it ends.
    """

    neighbours: int = 24
    tenure: int = 50
    patience: int = 40


def solve(
    problem: Problem,
    *,
    seed: int = 0,
    time_budget_s: float = 10.0,
    clock: Callable[[], float],
    settings: SearchSettings | None = None,
) -> Plan:
    """Groups, phases, parallelism and routes for the problem.

    The same problem and seed give the same plan, as long as the search ends before its time budget.

    Args:
        problem: What to plan for.
        seed: Of the moves.
        time_budget_s: When to stop searching at the latest.
        clock: Monotonic seconds.
        settings: How hard to search.

    Raises:
        InvalidArgumentError: No group of the cluster's GPUs holds the model.
    """
    settings = settings or SearchSettings()
    began_s = clock()
    search = _Search(problem, Draws(seed))
    start = search.start()
    best = tabu_search(
        start,
        lambda state: search.neighbours(state, settings.neighbours),
        search.score,
        tenure=settings.tenure,
        patience=settings.patience,
        out_of_time=lambda: clock() - began_s >= time_budget_s,
    )
    plan = plan_of(search.evaluator, search.assess(best), strategy="thunderserve", seed=seed)
    return replace(plan, search_seconds=clock() - began_s)


class _Search:
    """States and what they are worth."""

    def __init__(self, problem: Problem, draws: Draws) -> None:
        self.evaluator = Evaluator(problem)
        self._problem = problem
        self._draws = draws
        self._bins = Bins(problem.cluster)
        self._parallelism = Parallelism(problem, self.evaluator.shapes, self._bins)
        self._scores: dict[Partition, float] = {}

    def start(self) -> Partition:
        phases = self._problem.engine.phases
        found = starting_partitions(self._problem.cluster, self._bins, phases, self._holds)
        starts = [
            self._canonical([replace(part, haste=haste) for part in parts])
            for parts in found
            for haste in range(_START_HASTES)
        ]
        best = max(starts, key=self.score)
        if not any(self._holds(part.counts) for part in best):
            self._refuse()
        return best

    def _holds(self, counts: tuple[int, ...]) -> bool:
        return bool(self._parallelism.options(counts, self._problem.engine.phases[0]))

    def _refuse(self) -> None:
        model, cluster = self._problem.model, self._problem.cluster
        memory = sum(cluster.type_of(gpu).memory_bytes for gpu in cluster.gpus)
        raise InvalidArgumentError(
            f"no group of this cluster's GPUs holds {model.name}: its weights take "
            f"{model.weight_bytes / 1e9:.1f} GB, the {len(cluster.gpus)} GPUs have "
            f"{memory / 1e9:.1f} GB together; add GPUs or choose a smaller model",
            param="cluster",
        )

    def neighbours(self, state: Partition, number: int) -> list[Partition]:
        phases = self._problem.engine.phases
        made = (neighbour(state, self._draws, phases) for _ in range(number))
        return list(dict.fromkeys(self._canonical(parts) for parts in made))

    def _canonical(self, parts: Sequence[Part]) -> Partition:
        """Alike states are one; haste beyond a group's last option is no haste more."""
        return self._bins.canonical([replace(part, haste=self._last(part)) for part in parts])

    def _last(self, part: Part) -> int:
        return max(0, min(part.haste, len(self._parallelism.options(part.counts, part.phase)) - 1))

    def score(self, state: Partition) -> float:
        if state not in self._scores:
            self._scores[state] = self.assess(state).score
        return self._scores[state]

    def assess(self, state: Partition) -> Assessment:
        """Parts that cannot hold the model stay idle."""
        held = [
            (part.phase, options[part.haste])
            for part in state
            if (options := self._parallelism.options(part.counts, part.phase))
        ]
        held.sort(key=lambda each: _PHASE_ORDER.index(each[0]))
        seats = [Seat(f"g{i}", phase, design) for i, (phase, design) in enumerate(held)]
        return self.evaluator.assess(seats)
