"""How groups fill a node: every way to cut its GPUs that leaves no room for another group."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from thunderserve.control.planner.search import Counts

__all__ = ["MOST_PATTERNS", "Pattern", "patterns_of"]

Pattern = tuple[tuple["Counts", int], ...]
"""Groups of these GPU counts, so many of each."""

MOST_PATTERNS = 2000
"""A node with more is not cut into patterns."""


def patterns_of(sizes: Counts, groups: Sequence[Counts]) -> tuple[Pattern, ...] | None:
    """Every full packing of a node.

    Args:
        sizes: GPUs of the node, by bin.
        groups: What a group may take of each bin.

    Returns:
        None when there are more than `MOST_PATTERNS`.
    """
    kinds = sorted(set(groups), reverse=True)
    found: dict[Pattern, None] = {}
    stack: list[tuple[Counts, int, tuple[Counts, ...]]] = [(sizes, 0, ())]
    while stack:
        left, at, taken = stack.pop()
        fitting = [i for i in range(at, len(kinds)) if _fits(kinds[i], left)]
        if not any(_fits(kind, left) for kind in kinds[:at]) and not fitting:
            found[tuple(sorted(Counter(taken).items()))] = None
            if len(found) > MOST_PATTERNS:
                return None
        for i in fitting:
            rest = tuple(a - b for a, b in zip(left, kinds[i], strict=True))
            stack.append((rest, i, (*taken, kinds[i])))
    return tuple(found)


def _fits(group: Counts, room: Counts) -> bool:
    return all(a <= b for a, b in zip(group, room, strict=True))
