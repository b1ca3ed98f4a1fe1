"""Moves of the search: what one change makes of the groups of a block.

::

    flip    PREFILL{4} -> DECODE{4}            move   {4} {2} -> {3} {3}
    split   {4} -> {2} {2}                     swap   {2 A, 2 B} {4 C} -> {A, 2 B, C} {A, 3 C}
    merge   {2} {2} -> {4}                     tune   pp 4 -> tp 2, pp 2

Source: ThunderServe (MLSys 2025) searches partitions and phases by tabu search; which moves it
uses is not in the sources at hand, so these are ours.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import chain, combinations, permutations, product
from typing import TYPE_CHECKING

from thunderserve.control.planner.search.partition import Counts, Part

if TYPE_CHECKING:
    from thunderserve.core.plan import Phase

__all__ = ["MOVES", "Move", "Parts", "changes", "crossings"]

_LAST = 6
"""Of a group's parallel configurations; whoever takes the move knows if there are fewer."""

Parts = tuple[Part, ...]
Move = Callable[[Parts, Sequence["Phase"]], Iterator[Parts]]


def changes(parts: Parts, phases: Sequence[Phase]) -> Iterator[Parts]:
    """Everything that one move makes of these groups; some of it twice."""
    for make in MOVES:
        yield from make(parts, phases)


def crossings(ones: Parts, others: Parts) -> Iterator[Parts]:
    """Everything that one move makes of two blocks' groups together, by joining two of them."""
    for one, other in product(dict.fromkeys(ones), dict.fromkeys(others)):
        rest = _without(_without((*ones, *others), one), other)
        for made in chain(_merged(one, other), _moved(one, other), _moved(other, one)):
            yield (*rest, *made)
        for made in _swapped(one, other):
            yield (*rest, *made)


def flip(parts: Parts, phases: Sequence[Phase]) -> Iterator[Parts]:
    """Change a group's phase."""
    for part in dict.fromkeys(parts):
        for phase in phases:
            if phase is not part.phase:
                for haste in _hastes(part):
                    yield (*_without(parts, part), replace(part, phase=phase, haste=haste))


def split(parts: Parts, phases: Sequence[Phase]) -> Iterator[Parts]:
    """Cut a group in two, the new one in any phase; or in as many equal ones as it can be."""
    for part in dict.fromkeys(parts):
        rest = _without(parts, part)
        for taken in dict.fromkeys(_halves(part.counts)):
            kept = replace(part, counts=_minus(part.counts, taken))
            for phase in phases:
                yield (*rest, kept, Part(phase, taken, part.haste))
        for pieces in range(3, part.size + 1):
            if all(count % pieces == 0 for count in part.counts):
                piece = replace(part, counts=tuple(count // pieces for count in part.counts))
                yield (*rest, *[piece] * pieces)


def merge(parts: Parts, phases: Sequence[Phase]) -> Iterator[Parts]:
    """Make one group of two, in the phase of either."""
    del phases
    for one, other in dict.fromkeys(combinations(parts, 2)):
        for made in _merged(one, other):
            yield (*_without(_without(parts, one), other), *made)


def move(parts: Parts, phases: Sequence[Phase]) -> Iterator[Parts]:
    """Give GPUs of one group to another."""
    del phases
    for giver, taker in dict.fromkeys(permutations(parts, 2)):
        for made in _moved(giver, taker):
            yield (*_without(_without(parts, giver), taker), *made)


def swap(parts: Parts, phases: Sequence[Phase]) -> Iterator[Parts]:
    """Exchange as many GPUs of one bin for GPUs of another between two groups."""
    del phases
    for one, other in dict.fromkeys(combinations(parts, 2)):
        for made in _swapped(one, other):
            yield (*_without(_without(parts, one), other), *made)


def tune(parts: Parts, phases: Sequence[Phase]) -> Iterator[Parts]:
    """Give a group another of its parallel configurations."""
    del phases
    for part in dict.fromkeys(parts):
        for haste in range(_LAST + 1):
            if haste != part.haste:
                yield (*_without(parts, part), replace(part, haste=haste))


MOVES: tuple[Move, ...] = (flip, split, merge, move, swap, tune)


def _merged(one: Part, other: Part) -> Iterator[Parts]:
    counts = _plus(one.counts, other.counts)
    for like in dict.fromkeys((one, other)):
        for haste in _hastes(like):
            yield (replace(like, counts=counts, haste=haste),)


def _moved(giver: Part, taker: Part) -> Iterator[Parts]:
    for index, count in enumerate(giver.counts):
        for number in range(1, count + (giver.size > count)):
            given = _only(giver.counts, index, number)
            yield (
                replace(giver, counts=_minus(giver.counts, given)),
                replace(taker, counts=_plus(taker.counts, given)),
            )


def _swapped(one: Part, other: Part) -> Iterator[Parts]:
    for here, there in product(_used(one.counts), _used(other.counts)):
        if here == there:
            continue
        for number in range(1, min(one.counts[here], other.counts[there]) + 1):
            given, got = _only(one.counts, here, number), _only(one.counts, there, number)
            got = _only(other.counts, there, number)
            yield (
                replace(one, counts=_plus(_minus(one.counts, given), got)),
                replace(other, counts=_plus(_minus(other.counts, got), given)),
            )


def _hastes(part: Part) -> dict[int, None]:
    """Configurations that a changed group may have: its own, the first, the last."""
    return dict.fromkeys((part.haste, 0, _LAST))


def _halves(counts: Counts) -> Iterator[Counts]:
    """What a new group may take: some of one bin, or half of all."""
    size = sum(counts)
    for index, count in enumerate(counts):
        for number in range(1, count + 1):
            if number < size:
                yield _only(counts, index, number)
    half = tuple(count // 2 for count in counts)
    if any(half):
        yield half


def _without(parts: Parts, part: Part) -> Parts:
    """The parts but one of those that equal it."""
    at = parts.index(part)
    return parts[:at] + parts[at + 1 :]


def _used(counts: Counts) -> list[int]:
    return [i for i, count in enumerate(counts) if count]


def _only(counts: Counts, index: int, number: int) -> Counts:
    return tuple(number if i == index else 0 for i in range(len(counts)))


def _plus(one: Counts, other: Counts) -> Counts:
    return tuple(a + b for a, b in zip(one, other, strict=True))


def _minus(one: Counts, other: Counts) -> Counts:
    return tuple(a - b for a, b in zip(one, other, strict=True))
