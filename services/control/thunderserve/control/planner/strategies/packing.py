"""Pipelines that share no GPU, so that the most requests flow: an exact set packing.

The GPUs of a stage are equal, as a slower one would hold the others up.
A kind of pipeline is a tensor-parallel degree and how many stages it has of every GPU type. Degrees
are powers of two, so stages fit on nodes exactly when, for each degree, those of it and of larger
ones take no more than the nodes can be cut into.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING

import pulp

from thunderserve.control.planner.strategies.pools import Pools
from thunderserve.control.planner.strategies.spots import Spots, take
from thunderserve.core.plan import Phase

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from thunderserve.control.planner.design import Design
    from thunderserve.control.planner.problem import Problem

__all__ = ["Packing", "Pipeline"]


@dataclass(frozen=True, slots=True)
class Pipeline:
    """A kind of pipeline: its stages of every GPU type, and what flows through it."""

    tp: int
    stages: tuple[int, ...]
    flow_rps: float

    @property
    def depth(self) -> int:
        """Stages of all types."""
        return sum(self.stages)


class Packing:
    """The pipelines of one problem, and the best choice among them."""

    def __init__(self, problem: Problem) -> None:
        self.pools = Pools(problem)
        self._engine = problem.engine
        self._pipelines = [p for p in self._enumerate() if p.flow_rps > 0]

    def best(self, depth: int) -> tuple[Design, ...]:
        """Pipelines of at most so many stages with the greatest flow together."""
        kinds = [pipeline for pipeline in self._pipelines if pipeline.depth <= depth]
        chosen = self._choose(kinds)
        # Large stages first: what is left of a node is then a multiple of the smaller ones.
        chosen.sort(key=lambda pipeline: (pipeline.tp, pipeline.depth), reverse=True)
        free = self._free()
        designs = []
        for pipeline in chosen:
            taken = take(free, self.pools.types, pipeline.tp, pipeline.stages)
            for bin_, gpus in taken.items():
                free[bin_] -= gpus
            if found := self._design(taken, pipeline.tp):
                designs.append(found)
        return tuple(designs)

    def flow_rps(self, depth: int) -> float:
        """The greatest flow of pipelines of at most so many stages."""
        return sum(self._flow_rps(design) for design in self.best(depth))

    def _free(self) -> Spots:
        pools = self.pools
        return {
            (kind, node): size for kind in pools.types for node, size in pools.nodes(kind).items()
        }

    def _enumerate(self) -> Iterator[Pipeline]:
        for tp in self._degrees():
            most = [self._cuts(kind, tp) for kind in self.pools.types]
            ranges = (range(min(count, self._engine.max_pp) + 1) for count in most)
            for stages in product(*ranges):
                if 1 <= sum(stages) <= self._engine.max_pp:
                    taken = take(self._free(), self.pools.types, tp, stages)
                    design = self._design(taken, tp)
                    yield Pipeline(tp, stages, self._flow_rps(design) if design else 0.0)

    def _degrees(self) -> list[int]:
        widest = max(self._free().values())
        return [1 << i for i in range(widest.bit_length()) if 1 << i <= self._engine.max_tp]

    def _cuts(self, kind: str, tp: int) -> int:
        """Stages of that degree that the type's nodes can be cut into."""
        return sum(size // tp for size in self.pools.nodes(kind).values())

    def _design(self, taken: Mapping[tuple[str, str], int], tp: int) -> Design | None:
        made = self.pools.mixed(taken, tp)
        return max(made, key=self._flow_rps, default=None)

    def _flow_rps(self, design: Design) -> float:
        return self.pools.evaluator.shapes.figures(design, Phase.COLOCATED).capacity_rps

    def _choose(self, kinds: list[Pipeline]) -> list[Pipeline]:
        lp = pulp.LpProblem("packing", pulp.LpMaximize)
        counts = [lp.add_variable(f"n_{i}", 0, cat="Integer") for i in range(len(kinds))]
        pairs = list(zip(kinds, counts, strict=True))
        lp += pulp.lpSum(pipeline.flow_rps * count for pipeline, count in pairs)
        for tp, (place, kind) in product(self._degrees(), enumerate(self.pools.types)):
            used = pulp.lpSum(
                pipeline.tp // tp * pipeline.stages[place] * count
                for pipeline, count in pairs
                if pipeline.tp >= tp and pipeline.stages[place]
            )
            lp += used <= self._cuts(kind, tp)
        lp.solve(pulp.HiGHS(msg=False, threads=1))
        return [pipeline for pipeline, count in pairs for _ in range(round(count.value() or 0))]
