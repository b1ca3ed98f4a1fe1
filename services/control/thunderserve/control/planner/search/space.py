"""The states of the search, where it begins and what surrounds them."""

from __future__ import annotations

from dataclasses import replace
from itertools import chain, combinations, takewhile
from typing import TYPE_CHECKING

from thunderserve.control.planner.flow import Evaluator
from thunderserve.control.planner.search.blocks import Block, Blocks, Layout, layout
from thunderserve.control.planner.search.moves import changes, crossings
from thunderserve.control.planner.search.parallelism import Parallelism
from thunderserve.control.planner.search.partition import Bins, Counts, Part
from thunderserve.control.planner.search.starts import starting_partitions
from thunderserve.control.planner.search.worth import Worth
from thunderserve.core.errors import InvalidArgumentError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from thunderserve.control.planner.flow import Assessment
    from thunderserve.control.planner.problem import Problem
    from thunderserve.control.planner.search.screen import Supply
    from thunderserve.core.draws import Draws

__all__ = ["SearchSpace"]

_START_HASTES = 3
_MOST_NODES = 4
"""Nodes of one block: orders of alike ones are all compared."""

Change = tuple[tuple[Block, ...], tuple[Block, ...]]
"""Blocks that go, and those that come instead."""


def _never() -> bool:
    return False


class SearchSpace:
    """Layouts of one problem.

    Args:
        problem: The problem.
        draws: Choose the moves where there are many.
        samples: Pairs of moves that are looked at from every state.
        enough: Cuts short what is under way: of a large cluster, starts, climbs and neighbours
            take seconds. What is found by then is returned, and there is always a start.
    """

    def __init__(
        self,
        problem: Problem,
        draws: Draws,
        *,
        samples: int,
        enough: Callable[[], bool] = _never,
    ) -> None:
        self.evaluator = Evaluator(problem)
        self._problem = problem
        self._draws = draws
        self._samples = samples
        self._enough = enough
        self._bins = Bins(problem.cluster)
        self._blocks = Blocks(self._bins)
        self._parallelism = Parallelism(problem, self.evaluator.shapes, self._bins)
        self._worth = Worth(self.evaluator, self._blocks, self._parallelism)
        self._changes: dict[Block, tuple[tuple[Block, ...], ...]] = {}
        self._crossings: dict[tuple[Block, Block], tuple[tuple[Block, ...], ...]] = {}

    # What a state is worth.

    def estimate(self, state: Layout) -> float:
        """Its worth without solving a flow."""
        return self._worth.estimate(state)

    def score(self, state: Layout) -> float:
        """Its worth by its best flow; where that has too many routes, by its estimate."""
        return self._worth.score(state)

    def assess(self, state: Layout) -> Assessment:
        """Its best flow; parts that cannot hold the model stay idle."""
        return self._worth.assess(state)

    # Where to begin.

    def starts(self) -> list[Layout]:
        """Layouts to begin from, the most promising first.

        Raises:
            InvalidArgumentError: No group of the cluster's GPUs holds the model.
        """
        made: dict[Layout, None] = {}
        holding = False
        for state in self._starting_states():
            made[state] = None
            holding = holding or any(self._worth.held(block) for block, _ in state)
            if holding and self._enough():
                break
        if not holding:
            self._refuse()
        return sorted(made, key=self.estimate, reverse=True)

    def _starting_states(self) -> Iterator[Layout]:
        engine = self._problem.engine
        found = starting_partitions(
            self._problem.cluster,
            self._bins,
            engine.phases,
            self._holds,
            most_nodes=engine.max_nodes,
        )
        for parts in found:
            for haste in range(_START_HASTES):
                settled = [self._settled(replace(part, haste=haste)) for part in parts]
                yield self._blocks.layout_of(settled)

    def _holds(self, counts: Counts) -> bool:
        phases = self._problem.engine.phases
        return any(self._parallelism.options(counts, phase) for phase in phases)

    def _settled(self, part: Part) -> Part:
        """Haste beyond a group's last option is no haste more."""
        last = len(self._parallelism.options(part.counts, part.phase)) - 1
        return replace(part, haste=max(0, min(part.haste, last)))

    def _refuse(self) -> None:
        model, cluster = self._problem.model, self._problem.cluster
        memory = sum(cluster.type_of(gpu).memory_bytes for gpu in cluster.gpus)
        raise InvalidArgumentError(
            f"no group of this cluster's GPUs holds {model.name}: its weights take "
            f"{model.weight_bytes / 1e9:.1f} GB, the {len(cluster.gpus)} GPUs have "
            f"{memory / 1e9:.1f} GB together; add GPUs or choose a smaller model",
            param="cluster",
        )

    # What surrounds a state.

    def neighbours(self, state: Layout) -> list[Layout]:
        """States that one move makes of one block or of all its like, the most promising first."""
        counts, supply = dict(state), self._worth.supply(state)
        found = {
            self._changed(counts, supply, change, times): 0
            for change in takewhile(self._goes_on, self._sampled(self._moves(counts)))
            for times in self._times(counts, change)
        }
        found.pop(state, None)
        return sorted(found, key=self.estimate, reverse=True)

    def _goes_on(self, _: object) -> bool:
        return not self._enough()

    def climbed(self, state: Layout) -> Layout:
        """A state that no move improves, by the estimate.

        Every block in turn gets its best change; when none helps, two moves at once may.
        """
        best = state
        while True:
            before = self.estimate(best)
            for block, _ in takewhile(self._goes_on, best):
                best = self._with_best_change(best, block)
            if self.estimate(best) <= before:
                best = max([best, *self.neighbours(best)[:1]], key=self.estimate)
            if self.estimate(best) <= before:
                return best

    def _with_best_change(self, state: Layout, block: Block) -> Layout:
        counts = dict(state)
        if block not in counts:
            return state
        supply = self._worth.supply(state)
        around = [
            self._changed(counts, supply, change, times)
            for change in takewhile(self._goes_on, self._singles(block))
            for times in self._times(counts, change)
        ]
        return max([state, *around], key=self.estimate)

    def _moves(self, counts: dict[Block, int]) -> list[Change]:
        """Every move within a block, and two of them at once; and those that join two blocks."""
        single = [change for block in counts for change in self._singles(block)]
        double = [self._both(*pair) for pair in self._pairs(single)]
        return [*single, *double, *self._joining(counts)]

    def _singles(self, block: Block) -> list[Change]:
        return [((block,), made) for made in self._changes_of(block)]

    def _pairs(self, single: Sequence[Change]) -> Iterator[tuple[Change, Change]]:
        for _ in range(self._samples if len(single) > 1 else 0):
            yield self._draws.pick(single), self._draws.pick(single)

    @staticmethod
    def _both(one: Change, other: Change) -> Change:
        return (one[0] + other[0], one[1] + other[1])

    def _joining(self, counts: dict[Block, int]) -> Iterator[Change]:
        if self._problem.engine.max_nodes == 1:
            return
        alike = [(block, block) for block, count in counts.items() if count > 1]
        for pair in [*combinations(counts, 2), *alike]:
            if sum(len(block.classes) for block in pair) <= _MOST_NODES:
                for made in self._crossings_of(pair):
                    yield pair, made

    def _sampled(self, moves: Sequence[Change]) -> Iterable[Change]:
        most = 2 * self._samples
        if len(moves) <= most:
            return moves
        return (self._draws.pick(moves) for _ in range(most))

    @staticmethod
    def _times(counts: dict[Block, int], change: Change) -> list[int]:
        """How often a change is made at once: to all blocks of a kind, or 1, 2, 4... of them."""
        gone = change[0]
        most = min(counts[block] // gone.count(block) for block in gone)
        return [*(2**i for i in range(most.bit_length()) if 2**i < most), *([most] if most else [])]

    def _changed(
        self, counts: dict[Block, int], supply: Supply, change: Change, times: int
    ) -> Layout:
        """The state after a change, estimated by what it changes."""
        gone, come = change
        made = dict(counts)
        for block in gone:
            made[block] -= times
        for block in come:
            made[block] = made.get(block, 0) + times
        state = layout(made)
        less, more = ((block, -times) for block in gone), ((block, times) for block in come)
        self._worth.estimate_changed(state, supply, chain(less, more))
        return state

    def _changes_of(self, block: Block) -> tuple[tuple[Block, ...], ...]:
        if block not in self._changes:
            found = changes(block.parts, self._problem.engine.phases)
            self._changes[block] = self._distinct(block.classes, found, (block,))
        return self._changes[block]

    def _crossings_of(self, pair: tuple[Block, Block]) -> tuple[tuple[Block, ...], ...]:
        if pair not in self._crossings:
            one, other = pair
            classes = one.classes + other.classes
            here = self._blocks.width(one.classes)
            there = self._blocks.width(other.classes)
            ones = tuple(_padded(part, 0, there) for part in one.parts)
            others = tuple(_padded(part, here, 0) for part in other.parts)
            self._crossings[pair] = self._distinct(classes, crossings(ones, others), pair)
        return self._crossings[pair]

    def _distinct(
        self, classes: tuple[int, ...], found: Iterable[Sequence[Part]], old: tuple[Block, ...]
    ) -> tuple[tuple[Block, ...], ...]:
        made: dict[tuple[Block, ...], None] = {}
        for parts in found:
            if all(self._spans(classes, part) <= self._problem.engine.max_nodes for part in parts):
                settled = (self._within(classes, part) for part in parts)
                made[tuple(sorted(self._blocks.settle(classes, settled)))] = None
        made.pop(tuple(sorted(old)), None)
        return tuple(made)

    def _spans(self, classes: tuple[int, ...], part: Part) -> int:
        return sum(any(part.counts[slot]) for slot in self._blocks.slots(classes))

    def _within(self, classes: tuple[int, ...], part: Part) -> Part:
        wide = replace(part, counts=self._blocks.wide(classes, part.counts))
        return replace(part, haste=self._settled(wide).haste)


def _padded(part: Part, before: int, after: int) -> Part:
    return replace(part, counts=(0,) * before + part.counts + (0,) * after)
