"""How a group holds the model: tensor-parallel within a node, pipeline stages across.

Every (tp, pp) that uses all of the group's GPUs is tried; layers go to unequal stages so that the
slowest is as fast as can be, within each stage's memory. A phase keeps what may serve it best: more
requests, or fewer sooner; which of these is better depends on what the other groups take.
"""

from __future__ import annotations

import math
from itertools import groupby
from typing import TYPE_CHECKING

from thunderserve.control.planner.design import Design, DesignStage
from thunderserve.core.plan import Phase

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from thunderserve.control.planner.flow import Shapes
    from thunderserve.control.planner.problem import EngineLimits, Problem
    from thunderserve.control.planner.search.partition import Bins, Counts
    from thunderserve.core.hardware import GpuType
    from thunderserve.core.model import ModelSpec
    from thunderserve.core.plan import Phase

__all__ = ["Parallelism", "balance_layers"]


class Parallelism:
    """Chooses a group's parallel configuration and remembers it."""

    def __init__(self, problem: Problem, shapes: Shapes, bins: Bins) -> None:
        self._problem = problem
        self._shapes = shapes
        self._bins = bins
        self._options: dict[tuple[Counts, Phase], tuple[Design, ...]] = {}

    def options(self, counts: Counts, phase: Phase) -> tuple[Design, ...]:
        """The designs worth having: none serves more requests in time, and each of them sooner.

        The first serves the most, the last is the quickest; empty when none holds the model.
        """
        key = (counts, phase)
        if key not in self._options:
            ranked = sorted(
                (design for design in self.designs(counts) if self._serves(design, phase)),
                key=lambda design: self._worth(design, phase),
                reverse=True,
            )
            self._options[key] = tuple(self._ever_quicker(ranked, phase))
        return self._options[key]

    def _serves(self, design: Design, phase: Phase) -> bool:
        return self._shapes.figures(design, phase).capacity_rps > 0

    def _worth(self, design: Design, phase: Phase) -> tuple[float, float]:
        """Requests per second in time; of equal ones, the quicker."""
        quickness = -self._shapes.figures(design, phase).idle_s
        return round(self._shapes.alone_rps(design, phase), 9), quickness

    def _ever_quicker(self, ranked: Sequence[Design], phase: Phase) -> Iterator[Design]:
        quickest_s = math.inf
        for design in ranked:
            idle_s = self._shapes.figures(design, phase).idle_s
            if idle_s < quickest_s:
                yield design
                quickest_s = idle_s

    def designs(self, counts: Counts) -> Iterator[Design]:
        """Every way for these GPUs to hold the model; some may come twice."""
        problem = self._problem
        gpus = [
            (each.node, [each.type] * count)
            for each, count in zip(self._bins.all, counts, strict=True)
            if count
        ]
        by_node = {
            node: [kind for _, kinds in held for kind in kinds]
            for node, held in groupby(gpus, key=lambda held: held[0])
        }
        if len(by_node) > problem.engine.max_nodes:
            return
        for tp in _degrees(list(by_node.values()), problem.model, problem.engine):
            seats = [
                (node, tuple(kinds[at : at + tp]))
                for node, kinds in by_node.items()
                for at in range(0, len(kinds), tp)
            ]
            yield from self._layered(seats)

    def _layered(self, seats: Sequence[tuple[str, tuple[str, ...]]]) -> Iterator[Design]:
        """Designs on these stages: layers balanced for arithmetic, for bandwidth, for memory."""
        problem = self._problem
        types = {gpu_type.name: gpu_type for gpu_type in problem.cluster.types}
        stages = [[types[name] for name in names] for _, names in seats]
        most = [self._most_layers(gpus, at, len(stages)) for at, gpus in enumerate(stages)]
        if sum(most) < problem.model.layers:
            return
        speeds = {
            tuple(min(gpu.tflops for gpu in gpus) for gpus in stages),
            tuple(min(gpu.memory_bytes_per_s for gpu in gpus) for gpus in stages),
            tuple(min(gpu.memory_bytes for gpu in gpus) for gpus in stages),
        }
        splits = {balance_layers(problem.model.layers, speed, most) for speed in sorted(speeds)}
        for split in sorted(splits):
            placed = zip(split, seats, strict=True)
            yield Design(tuple(DesignStage(layers, *seat) for layers, seat in placed if layers))

    def _most_layers(self, gpus: Sequence[GpuType], at: int, stages: int) -> int:
        """Layers that fit beside the embeddings, each with the KV cache of one mean request."""
        problem = self._problem
        model, workload = problem.model, problem.workload
        room = len(gpus) * min(gpu.memory_bytes for gpu in gpus)
        room *= problem.efficiency.memory_use_ratio
        ends = (at == 0) + (at == stages - 1)
        room -= ends * model.embedding_parameters * model.dtype_bytes
        tokens = workload.prompt.mean + workload.output.mean
        kv = tokens * model.kv_bytes_per_token_per_layer
        return max(0, int(room // (model.layer_parameters * model.dtype_bytes + kv)))


def _degrees(
    nodes: Sequence[Sequence[str]], model: ModelSpec, engine: EngineLimits
) -> Iterator[int]:
    """Values of tp that divide every node's GPUs and the model's heads."""
    total = sum(len(kinds) for kinds in nodes)
    widest = min((len(kinds) for kinds in nodes), default=0)
    for tp in range(1, min(engine.max_tp, widest) + 1):
        even = all(len(kinds) % tp == 0 for kinds in nodes)
        heads = model.heads % tp == 0 and (model.kv_heads % tp == 0 or tp % model.kv_heads == 0)
        if even and heads and total // tp <= min(engine.max_pp, model.layers):
            yield tp


def balance_layers(layers: int, speeds: Sequence[float], most: Sequence[int]) -> tuple[int, ...]:
    """Layers of every stage such that the slowest is as fast as can be.

    One layer at a time goes to the stage that would still finish first; for times that grow with
    the layers this greedy choice is optimal.

    Args:
        layers: To place; at most what all stages together can hold.
        speeds: Of every stage.
        most: Layers that each stage can hold.
    """
    placed = [0] * len(speeds)
    for _ in range(layers):
        open_stages = [i for i, count in enumerate(placed) if count < most[i]]
        soonest = min(open_stages, key=lambda i: ((placed[i] + 1) / speeds[i], i))
        placed[soonest] += 1
    return tuple(placed)
