"""Parts of a cluster's GPUs: which groups take how many of what.

GPUs of one type on one node are interchangeable: they are a bin, and a part says how many it takes
of each bin. Nodes that hold the same GPUs behind the same ports are interchangeable too: a class.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from thunderserve.core.plan import Phase

if TYPE_CHECKING:
    from collections.abc import Hashable

    from thunderserve.core.hardware import Cluster

__all__ = ["Bin", "Bins", "Counts", "Part"]

Counts = tuple[int, ...]


@dataclass(frozen=True, slots=True, order=True)
class Part:
    """A group.

    Attributes:
        counts: How many GPUs it takes of each bin.
        haste: Which of its sensible parallel configurations it has: 0 serves the most requests,
            higher ones serve fewer, sooner.
    """

    phase: Phase
    counts: Counts
    haste: int = 0

    @property
    def size(self) -> int:
        """GPUs of the group."""
        return sum(self.counts)


@dataclass(frozen=True, slots=True)
class Bin:
    """The GPUs of one type on one node."""

    node: str
    type: str
    size: int


class Bins:
    """The bins of a cluster, and which of its nodes are alike."""

    def __init__(self, cluster: Cluster) -> None:
        sizes = Counter((gpu.node, gpu.type) for gpu in cluster.gpus)
        self.all = tuple(Bin(node, kind, size) for (node, kind), size in sorted(sizes.items()))
        self._columns: dict[str, list[int]] = defaultdict(list)
        for index, each in enumerate(self.all):
            self._columns[each.node].append(index)
        linked = {end for first, second, _ in cluster.links for end in (first, second)}
        alike: dict[Hashable, list[str]] = defaultdict(list)
        for node in cluster.nodes:
            held = tuple((self.all[i].type, self.all[i].size) for i in self._columns[node.id])
            own = node.id if node.id in linked else ""
            alike[held, node.local, node.network, own].append(node.id)
        self.classes = tuple(tuple(sorted(nodes)) for nodes in alike.values())

    @property
    def sizes(self) -> Counts:
        """GPUs of every bin."""
        return tuple(each.size for each in self.all)

    def on_node(self, node: str) -> list[int]:
        """Indices of the node's bins."""
        return self._columns[node]
