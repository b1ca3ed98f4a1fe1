"""States of the search: blocks of nodes, and how many of each there are.

Groups that share a node depend on each other; what nodes do that share no group is nobody's concern
but the flow's. So a state is a multiset of blocks: a block is a node, or several that a group
joins, and what groups are on it. Alike nodes have no names in it, so that symmetric states are one,
and a cluster of a thousand GPUs is as many blocks as it has different nodes.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field, replace
from itertools import chain, islice, permutations, product
from typing import TYPE_CHECKING, TypeVar

from thunderserve.control.planner.search.partition import Bins, Counts, Part

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

__all__ = ["Block", "Blocks", "Layout", "layout"]

_Thing = TypeVar("_Thing")

_MOST_ORDERS = 720
"""Orders of a block's alike nodes of which the least is taken; symmetric blocks of more may differ,
which costs nothing but that both are looked at.
"""


@dataclass(frozen=True, slots=True, eq=False)
class Block:
    """Nodes that share groups, and the groups on them.

    Large clusters' states are dozens of blocks, compared and looked up many thousand times: the
    plain values by which they are ordered are hashed once.

    Attributes:
        classes: Of alike nodes, one for each of its nodes.
        parts: Their counts are of the bins of these nodes, one node after another.
    """

    classes: tuple[int, ...]
    parts: tuple[Part, ...]
    _values: tuple[object, ...] = field(init=False, repr=False)
    _hash: int = field(init=False, repr=False)

    def __post_init__(self) -> None:
        parts = tuple((part.phase.value, part.counts, part.haste) for part in self.parts)
        object.__setattr__(self, "_values", (self.classes, parts))
        object.__setattr__(self, "_hash", hash(self._values))

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Block) and self._values == other._values

    def __lt__(self, other: Block) -> bool:
        return self._values < other._values


Layout = tuple[tuple[Block, int], ...]
"""Blocks in a fixed order, with how many there are of each."""


def layout(counted: Mapping[Block, int]) -> Layout:
    """The layout with so many of each block."""
    return tuple((block, counted[block]) for block in sorted(counted) if counted[block])


class Blocks:
    """Makes blocks of one cluster in their canonical form, and puts them on its nodes."""

    def __init__(self, bins: Bins) -> None:
        self._bins = bins
        self._members = bins.classes
        self._class_of = {node: i for i, nodes in enumerate(bins.classes) for node in nodes}
        self._widths = tuple(len(bins.on_node(nodes[0])) for nodes in bins.classes)
        self._wide: dict[tuple[tuple[int, ...], Counts], Counts] = {}

    def layout_of(self, parts: Sequence[Part]) -> Layout:
        """The layout of parts whose counts are of all the cluster's bins."""
        found: Counter[Block] = Counter()
        touched = [self._nodes(part.counts) for part in parts]
        for nodes in _components(touched, self._class_of):
            ordered = sorted(nodes, key=lambda node: (self._class_of[node], node))
            columns = [column for node in ordered for column in self._bins.on_node(node)]
            own = [
                replace(part, counts=tuple(part.counts[column] for column in columns))
                for part, on in zip(parts, touched, strict=True)
                if nodes.issuperset(on) and on
            ]
            found.update(self.settle(tuple(self._class_of[node] for node in ordered), own))
        return layout(found)

    def _nodes(self, counts: Counts) -> set[str]:
        return {self._bins.all[index].node for index, count in enumerate(counts) if count}

    def settle(self, classes: Sequence[int], parts: Iterable[Part]) -> tuple[Block, ...]:
        """The parts as canonical blocks: one for all nodes that groups join."""
        kept = [part for part in parts if part.size]
        if len(classes) == 1:
            return (Block(tuple(classes), tuple(sorted(kept))),)
        slots = self.slots(classes)
        touched = [{i for i, s in enumerate(slots) if any(part.counts[s])} for part in kept]
        made = []
        for component in _components(touched, range(len(classes))):
            own = [p for p, on in zip(kept, touched, strict=True) if component.issuperset(on)]
            made.append(self._canonical(sorted(component), classes, own))
        return tuple(made)

    def width(self, classes: Iterable[int]) -> int:
        """Counts of a part of nodes of these classes."""
        return sum(self._widths[each] for each in classes)

    def slots(self, classes: Sequence[int]) -> list[slice]:
        """Which counts of a block's parts are of which of its nodes."""
        slots, at = [], 0
        for each in classes:
            slots.append(slice(at, at + self._widths[each]))
            at += self._widths[each]
        return slots

    def _canonical(
        self, nodes: Sequence[int], classes: Sequence[int], parts: Sequence[Part]
    ) -> Block:
        """The least of the orders of alike nodes."""
        slots = self.slots(classes)
        by_class: dict[int, list[int]] = defaultdict(list)
        for node in nodes:
            by_class[classes[node]].append(node)
        named = sorted(by_class)
        by_name = (islice(permutations(by_class[each]), _MOST_ORDERS) for each in named)
        orders = islice(product(*by_name), _MOST_ORDERS)
        return Block(
            tuple(each for each in named for _ in by_class[each]),
            min(_reordered(parts, [slots[i] for i in chain(*order)]) for order in orders),
        )

    def wide(self, classes: tuple[int, ...], counts: Counts) -> Counts:
        """A part's counts of all the cluster's bins, on the first nodes of its classes."""
        key = (classes, counts)
        if key not in self._wide:
            made = [0] * len(self._bins.all)
            nodes = [next(names) for names in self._first_nodes(classes)]
            columns = [column for node in nodes for column in self._bins.on_node(node)]
            for column, count in zip(columns, counts, strict=True):
                made[column] = count
            self._wide[key] = tuple(made)
        return self._wide[key]

    def _first_nodes(self, classes: tuple[int, ...]) -> Iterator[Iterator[str]]:
        names = {each: iter(self._members[each]) for each in set(classes)}
        return (names[each] for each in classes)

    def placed(self, state: Layout) -> Iterator[tuple[Block, dict[str, str]]]:
        """Every block with the nodes it is on, by those on which `wide` describes it."""
        free = [iter(nodes) for nodes in self._members]
        for block, count in state:
            described = [next(names) for names in self._first_nodes(block.classes)]
            for _ in range(count):
                taken = [next(free[each]) for each in block.classes]
                yield block, dict(zip(described, taken, strict=True))


def _reordered(parts: Sequence[Part], slots: Sequence[slice]) -> tuple[Part, ...]:
    return tuple(
        sorted(
            replace(part, counts=tuple(chain(*(part.counts[slot] for slot in slots))))
            for part in parts
        )
    )


def _components(joined: Iterable[set[_Thing]], everything: Iterable[_Thing]) -> list[set[_Thing]]:
    """Sets of things that are joined, directly or through others."""
    components: list[set[_Thing]] = [{each} for each in everything]
    for together in joined:
        touched = [component for component in components if component & together]
        if len(touched) > 1:
            components = [each for each in components if each not in touched]
            components.append(set().union(*touched))
    return components
