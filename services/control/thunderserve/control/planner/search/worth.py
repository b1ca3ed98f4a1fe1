"""What a state of the search is worth: by an estimate, by its best flow, as an assessment."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import TYPE_CHECKING

from thunderserve.control.planner.flow import (
    Assessment,
    Copies,
    Evaluator,
    Seat,
    pooled_problem,
    renamed,
)
from thunderserve.control.planner.search.flexibility import can_flip, discounted
from thunderserve.control.planner.search.screen import Screen, Supply
from thunderserve.core.plan import Phase

if TYPE_CHECKING:
    from collections.abc import Iterable

    from thunderserve.control.planner.design import Design
    from thunderserve.control.planner.search.blocks import Block, Blocks, Layout
    from thunderserve.control.planner.search.parallelism import Parallelism

__all__ = ["Worth"]

_PHASE_ORDER = (Phase.PREFILL, Phase.DECODE, Phase.COLOCATED)

_MOST_ROUTES = 4000
"""Routes of a flow that is solved during the search."""


class Worth:
    """Worths of one problem's states, each found once."""

    def __init__(self, evaluator: Evaluator, blocks: Blocks, parallelism: Parallelism) -> None:
        self._evaluator = evaluator
        self._problem = evaluator.problem
        self._blocks = blocks
        self._parallelism = parallelism
        self._screen = Screen(evaluator, self.held)
        self._designs: dict[Block, tuple[tuple[Phase, Design], ...]] = {}
        self._estimates: dict[Layout, float] = {}
        self._scores: dict[Layout, float] = {}

    def supply(self, state: Layout) -> Supply:
        """What the state's groups can do in each phase."""
        return self._screen.supply(state)

    def estimate_changed(
        self, state: Layout, before: Supply, changes: Iterable[tuple[Block, int]]
    ) -> None:
        """Estimates a state by what it changes of another one's supply."""
        if state not in self._estimates:
            more = ((self._screen.supply_of(block), times) for block, times in changes)
            self._estimates[state] = self._judged(self._screen.value(before.plus(more)), state)

    def estimate(self, state: Layout) -> float:
        """Its worth without solving a flow."""
        if state not in self._estimates:
            value = self._screen.value(self._screen.supply(state))
            self._estimates[state] = self._judged(value, state)
        return self._estimates[state]

    def score(self, state: Layout) -> float:
        """Its worth by its best flow; where that has too many routes, by its estimate."""
        if state not in self._scores:
            self._scores[state] = self._computed_score(state)
        return self._scores[state]

    def _computed_score(self, state: Layout) -> float:
        copies = self._copies(state)
        kinds = Counter(phase for each in copies for phase, _ in set(each.held))
        if kinds[Phase.PREFILL] * kinds[Phase.DECODE] > _MOST_ROUTES:
            return self.estimate(state)
        posed = pooled_problem(self._evaluator, copies)
        return self._judged(self._evaluator.solve(posed).score, state)

    def _copies(self, state: Layout) -> list[Copies]:
        placed: dict[Block, list[dict[str, str]]] = defaultdict(list)
        for block, nodes in self._blocks.placed(state):
            placed[block].append(nodes)
        return [
            Copies(
                tuple((phase, renamed(design, on[0])) for phase, design in self.held(block)),
                len(on),
                dict(zip(on[0].values(), on[1].values(), strict=True)) if len(on) > 1 else {},
            )
            for block, on in placed.items()
        ]

    def _judged(self, value: float, state: Layout) -> float:
        engine = self._problem.engine
        gpus = (
            (count * design.tp * design.pp, can_flip(phase, design.pp, engine))
            for block, count in state
            for phase, design in self.held(block)
        )
        return discounted(value, gpus, self._problem.flippable_ratio)

    def assess(self, state: Layout) -> Assessment:
        """Its best flow; parts that cannot hold the model stay idle."""
        held = [
            (phase, renamed(design, nodes))
            for block, nodes in self._blocks.placed(state)
            for phase, design in self.held(block)
        ]
        held.sort(key=lambda each: _PHASE_ORDER.index(each[0]))
        seats = [Seat(f"g{i}", phase, design) for i, (phase, design) in enumerate(held)]
        return self._evaluator.assess(seats)

    def held(self, block: Block) -> tuple[tuple[Phase, Design], ...]:
        """The block's groups that hold the model, on the first nodes of its classes."""
        if block not in self._designs:
            options = (
                (part, self._parallelism.options(wide, part.phase))
                for part in block.parts
                for wide in [self._blocks.wide(block.classes, part.counts)]
            )
            self._designs[block] = tuple(
                (part.phase, designs[part.haste]) for part, designs in options if designs
            )
        return self._designs[block]
