"""The plans that ThunderServe's authors published, on their 32 GPUs.

Source: ThunderServe (MLSys 2025), the table of phases and parallel configurations for LLaMA-30B.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

from thunderserve.control.planner.strategies.pools import Pools
from thunderserve.control.planner.strategies.spots import take
from thunderserve.core.errors import InvalidArgumentError
from thunderserve.core.plan import Phase

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from thunderserve.control.planner.design import Design
    from thunderserve.control.planner.problem import Problem
    from thunderserve.control.planner.strategies.spots import Spots
    from thunderserve.core.plan import Plan

__all__ = ["DEPARTURES", "NODES", "PUBLISHED", "Row", "applies", "plan_published"]

NODES = 2
"""Hosts that a published group spans, at most: those of two GPU types."""

DEPARTURES = (
    "how layers are split between stages, and how requests are routed, is ours: neither is printed",
    "which GPUs share a host is not printed either; here, four equal ones do",
)


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


def applies(problem: Problem) -> bool:
    """True when a plan was published for the problem's workload on its GPUs."""
    rows = PUBLISHED.get(problem.workload.name, ())
    return bool(rows) and _gpus(rows) == Counter(gpu.type for gpu in problem.cluster.gpus)


def plan_published(problem: Problem, seed: int, clock: Callable[[], float]) -> Plan:
    """The published plan for the problem's workload, all of its groups.

    Raises:
        InvalidArgumentError: There is none for its workload and GPUs.
    """
    del clock
    if not applies(problem):
        raise InvalidArgumentError(
            f"no plan for {problem.workload.name} on these GPUs was published; there are plans for "
            f"{' and '.join(PUBLISHED)} on the 32 GPUs of paper-cloud-32",
            param="strategies",
        )
    pools = Pools(problem)
    placed = tuple(_place(pools, PUBLISHED[problem.workload.name]))
    return pools.plan(placed, strategy="published", seed=seed, keep_idle=True)


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
