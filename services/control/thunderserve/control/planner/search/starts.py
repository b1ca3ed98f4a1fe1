"""Where the search begins: whole nodes, or the smallest groups that hold the model."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from thunderserve.control.planner.search.partition import Bins, Counts, Part
from thunderserve.core.plan import Phase

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from thunderserve.core.hardware import Cluster

__all__ = ["starting_partitions"]

_DIVISIONS = 32
"""Divisions into phases that are tried of many groups; of fewer, all."""


def starting_partitions(
    cluster: Cluster,
    bins: Bins,
    phases: Sequence[Phase],
    holds: Callable[[Counts], bool],
    *,
    most_nodes: int,
) -> Iterator[list[Part]]:
    """Partitions to begin from, with every sensible division into phases.

    Groups stay within nodes, where links are fast, unless a node cannot hold the model. Those with
    the most arithmetic per byte of memory bandwidth prefill; how many, the caller finds out by
    trying all.

    Args:
        cluster: The hardware.
        bins: Its bins.
        phases: That a group may take.
        holds: True when GPUs in these numbers hold the model.
        most_nodes: That a group may span.
    """
    for groups in (_small_groups(cluster, bins, holds, most_nodes), _whole_nodes(cluster, bins)):
        ordered = sorted(groups, key=lambda counts: _intensity(cluster, bins, counts), reverse=True)
        if {Phase.PREFILL, Phase.DECODE} <= set(phases):
            for prefills in _divisions(len(ordered)):
                yield [
                    Part(Phase.PREFILL if i < prefills else Phase.DECODE, counts)
                    for i, counts in enumerate(ordered)
                ]
        if Phase.COLOCATED in phases:
            yield [Part(Phase.COLOCATED, counts) for counts in ordered]
        if len(phases) == 1:
            yield [Part(phases[0], counts) for counts in ordered]


def _divisions(groups: int) -> list[int]:
    """How many groups may prefill."""
    most = max(1, groups - 1)
    steps = min(most, _DIVISIONS)
    return sorted({1 + i * (most - 1) // max(1, steps - 1) for i in range(steps)})


def _whole_nodes(cluster: Cluster, bins: Bins) -> list[Counts]:
    sizes = bins.sizes
    return [
        tuple(size if i in bins.on_node(node.id) else 0 for i, size in enumerate(sizes))
        for node in cluster.nodes
    ]


def _small_groups(
    cluster: Cluster, bins: Bins, holds: Callable[[Counts], bool], most_nodes: int
) -> list[Counts]:
    """Bin by bin, the fewest GPUs that hold the model; what is left over is pooled likewise."""
    groups: list[Counts] = []
    left: list[list[Counts]] = []
    for node in cluster.nodes:
        left.append([])
        for index in bins.on_node(node.id):
            size = bins.all[index].size
            fewest = next((n for n in range(1, size + 1) if holds(_one(bins, index, n))), None)
            whole = size // fewest if fewest else 0
            groups += [_one(bins, index, fewest or 0)] * whole
            if rest := size - whole * (fewest or 0):
                left[-1].append(_one(bins, index, rest))
    return groups + _pools(left, holds, most_nodes)


def _pools(
    left: Iterable[Sequence[Counts]], holds: Callable[[Counts], bool], most_nodes: int
) -> list[Counts]:
    """Groups of what nodes have left over, gathered in order until each holds the model.

    What does not hold it together with as many nodes as a group may span is a part of each node.
    """
    pools: list[Counts] = []
    gathered: deque[Counts] = deque()  # of one node each
    for own in filter(None, left):
        gathered.append(_sum(own))
        if len(gathered) > most_nodes:
            pools.append(gathered.popleft())
        if holds(_sum(gathered)):
            pools.append(_sum(gathered))
            gathered.clear()
    return [*pools, *gathered]


def _sum(several: Iterable[Counts]) -> Counts:
    return tuple(map(sum, zip(*several, strict=True)))


def _one(bins: Bins, index: int, number: int) -> Counts:
    return tuple(number if i == index else 0 for i in range(len(bins.all)))


def _intensity(cluster: Cluster, bins: Bins, counts: Counts) -> float:
    """FLOP per byte of memory traffic that the GPUs can do."""
    types = {gpu_type.name: gpu_type for gpu_type in cluster.types}
    held = [(types[each.type], n) for each, n in zip(bins.all, counts, strict=True) if n]
    flops = sum(gpu_type.flops_per_s * n for gpu_type, n in held)
    return flops / sum(gpu_type.memory_bytes_per_s * n for gpu_type, n in held)
