"""Which routes nothing tells apart: they get equal flows, and are one variable."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable, Mapping

    from thunderserve.control.planner.flow.flow import FlowProblem, Pair

__all__ = ["symmetric_pairs"]


def symmetric_pairs(problem: FlowProblem, indices: Iterable[int]) -> list[list[int]]:
    """Pairs that nothing tells apart, found by colour refinement.

    Averaging an optimal flow over such pairs keeps it feasible and optimal, so equal flows within
    an orbit lose nothing.

    Source: Grohe, Kersting, Mladenov, Selman, "Dimension Reduction via Colour Refinement" (2014).
    """
    pairs = [(i, problem.pairs[i]) for i in indices]
    colours = _numbered(
        {s.id: (s.phase, s.capacity_rps, s.losses) for s in problem.stations}
        | {port: ("port", capacity) for port, capacity in problem.ports.items()}
    )
    while True:
        labels = {i: _label(pair, colours) for i, pair in pairs}
        seen: dict[str, Counter[Hashable]] = defaultdict(Counter)
        for i, pair in pairs:
            for station in pair.stations:
                seen[station][labels[i]] += 1
            for port, sent in pair.bytes:
                seen[port][labels[i], sent] += 1
        refined = _numbered(
            {name: (colour, frozenset(seen[name].items())) for name, colour in colours.items()}
        )
        if len(set(refined.values())) == len(set(colours.values())):
            break
        colours = refined
    orbits: dict[Hashable, list[int]] = defaultdict(list)
    for i, _ in pairs:
        orbits[labels[i]].append(i)
    return list(orbits.values())


def _label(pair: Pair, colours: Mapping[str, int]) -> Hashable:
    ports = sorted((colours[port], sent) for port, sent in pair.bytes)
    ends = (colours[pair.prefill], colours[pair.decode])
    return (ends, pair.attainment_ratio, tuple(ports))


def _numbered(keys: Mapping[str, Hashable]) -> dict[str, int]:
    numbers: dict[Hashable, int] = {}
    return {name: numbers.setdefault(key, len(numbers)) for name, key in keys.items()}
