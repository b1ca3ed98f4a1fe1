"""The plans that ThunderServe's authors published, on their 32 GPUs.

Source: ThunderServe (MLSys 2025), the table of phases and parallel configurations for LLaMA-30B.
It does not say how layers are split nor how requests are routed: both are ours.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import TYPE_CHECKING

from thunderserve.control.planner.strategies.pools import Pools
from thunderserve.control.planner.strategies.spots import take
from thunderserve.core.plan import Phase

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from thunderserve.control.planner.design import Design
    from thunderserve.control.planner.problem import Problem
    from thunderserve.control.planner.strategies.spots import Spots
    from thunderserve.core.plan import Plan

__all__ = ["PUBLISHED", "PUBLISHED_NODES", "Row", "published_plan", "published_problem"]

PUBLISHED_NODES = 2
"""Hosts that a published group spans, at most: those of two GPU types."""


@dataclass(frozen=True, slots=True)
class Row:
    """So many equal groups; `gpus` are those of one group, by type."""

    groups: int
    phase: Phase
    tp: int
    gpus: tuple[tuple[str, int], ...]


_MIXED = (("A5000", 2), ("3090Ti", 2))

PUBLISHED: Mapping[str, tuple[Row, ...]] = MappingProxyType(
    {
        "azure-code": (
            Row(4, Phase.PREFILL, 2, (("A40", 2),)),
            Row(1, Phase.PREFILL, 4, (("A5000", 4),)),
            Row(2, Phase.PREFILL, 2, (("A6000", 2),)),
            Row(1, Phase.PREFILL, 2, _MIXED),
            Row(1, Phase.DECODE, 2, (("3090Ti", 4),)),
            Row(2, Phase.DECODE, 1, (("A6000", 2),)),
            Row(1, Phase.DECODE, 2, _MIXED),
        ),
        "azure-conv": (
            Row(3, Phase.PREFILL, 2, (("A40", 2),)),
            Row(1, Phase.PREFILL, 2, _MIXED),
            Row(1, Phase.DECODE, 2, (("3090Ti", 4),)),
            Row(1, Phase.DECODE, 1, (("A40", 2),)),
            Row(1, Phase.DECODE, 2, (("A5000", 4),)),
            Row(4, Phase.DECODE, 1, (("A6000", 2),)),
            Row(1, Phase.DECODE, 2, _MIXED),
        ),
    }
)
"""Groups by workload."""


def published_problem(problem: Problem) -> Problem:
    """The problem under limits that the published plans keep."""
    nodes = max(PUBLISHED_NODES, problem.engine.max_nodes)
    phases = (Phase.PREFILL, Phase.DECODE)
    return replace(problem, engine=replace(problem.engine, max_nodes=nodes, phases=phases))


def published_plan(problem: Problem, *, strategy: str = "published") -> Plan | None:
    """The published plan for the problem's workload; None when there is none for its GPUs."""
    rows = PUBLISHED.get(problem.workload.name, ())
    if not rows or _gpus(rows) != Counter(gpu.type for gpu in problem.cluster.gpus):
        return None
    pools = Pools(published_problem(problem))
    placed = tuple(_place(pools, rows))
    return pools.plan(placed, strategy=strategy, seed=0, keep_idle=True)


def _place(pools: Pools, rows: Iterable[Row]) -> Iterator[tuple[Phase, Design]]:
    """Groups on nodes; those of one type first, so that they find whole ones."""
    free = {(kind, node): size for kind in pools.types for node, size in pools.nodes(kind).items()}
    for row in sorted(rows, key=lambda row: (len(row.gpus), -row.tp)):
        types, counts = zip(*row.gpus, strict=True)
        stages = tuple(count // row.tp for count in counts)
        for _ in range(row.groups):
            taken = take(free, types, row.tp, stages)
            for spot, gpus in taken.items():
                free[spot] -= gpus
            yield row.phase, _design(pools, row, taken)


def _design(pools: Pools, row: Row, taken: Spots) -> Design:
    """Layers split as serves the phase best."""
    made = pools.mixed(taken, row.tp)
    return max(made, key=lambda design: pools.alone_rps([design], row.phase))


def _gpus(rows: tuple[Row, ...]) -> Counter[str]:
    counted: Counter[str] = Counter()
    for row in rows:
        for kind, count in row.gpus:
            counted[kind] += row.groups * count
    return counted
