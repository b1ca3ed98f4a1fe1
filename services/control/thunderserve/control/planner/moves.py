"""Moves of the search: each makes a neighbour of a partition, or None where it does not apply.

::

    flip    PREFILL{4} -> DECODE{4}            move   {4} {2} -> {3} {3}
    split   {4} -> {2} {2}                     swap   {2 A, 2 B} {4 C} -> {A, 2 B, C} {A, 3 C}
    merge   {2} {2} -> {4}                     tune   pp 4 -> tp 2, pp 2

Source: ThunderServe (MLSys 2025) searches partitions and phases by tabu search; which moves it
uses is not in the sources at hand, so these are ours.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from thunderserve.control.planner.partition import Counts, Part, Partition

if TYPE_CHECKING:
    from thunderserve.core.draws import Draws
    from thunderserve.core.plan import Phase

__all__ = ["MOVES", "Move", "neighbour"]

Move = Callable[[Partition, "Draws", Sequence["Phase"]], list[Part] | None]

_TRIES = 20


def neighbour(partition: Partition, draws: Draws, phases: Sequence[Phase]) -> list[Part]:
    """A partition that one random move makes; the same one when none applies."""
    for _ in range(_TRIES if partition else 0):
        made = draws.pick(MOVES)(partition, draws, phases)
        if made is not None:
            return made
    return list(partition)


def flip(partition: Partition, draws: Draws, phases: Sequence[Phase]) -> list[Part] | None:
    """Change a group's phase."""
    at = draws.below(len(partition))
    others = [phase for phase in phases if phase is not partition[at].phase]
    if not others:
        return None
    return _with(partition, {at: replace(partition[at], phase=draws.pick(others))})


def split(partition: Partition, draws: Draws, phases: Sequence[Phase]) -> list[Part] | None:
    """Cut a group in two; the new half may take another phase."""
    at = draws.below(len(partition))
    part = partition[at]
    bins = _used(part.counts)
    some = draws.pick(bins)
    if len(bins) > 1:
        taken = part.counts[some]
    elif part.size > 1:
        taken = draws.pick((part.size // 2, 1 + draws.below(part.size - 1)))
    else:
        return None
    half = _only(part.counts, some, taken)
    rest = replace(part, counts=_minus(part.counts, half))
    return [*_with(partition, {at: rest}), Part(draws.pick(phases), half, part.haste)]


def merge(partition: Partition, draws: Draws, phases: Sequence[Phase]) -> list[Part] | None:
    """Make one group of two, in the phase of either."""
    del phases
    if (pair := _two(partition, draws)) is None:
        return None
    one, other = pair
    counts = _plus(partition[one].counts, partition[other].counts)
    like = partition[draws.pick(pair)]
    rest = [part for i, part in enumerate(partition) if i not in pair]
    return [*rest, replace(like, counts=counts)]


def move(partition: Partition, draws: Draws, phases: Sequence[Phase]) -> list[Part] | None:
    """Give GPUs of one group to another."""
    del phases
    if (pair := _two(partition, draws)) is None:
        return None
    giver, taker = (partition[i] for i in pair)
    some = draws.pick(_used(giver.counts))
    given = _only(giver.counts, some, 1 + draws.below(giver.counts[some]))
    return _with(
        partition,
        {
            pair[0]: replace(giver, counts=_minus(giver.counts, given)),
            pair[1]: replace(taker, counts=_plus(taker.counts, given)),
        },
    )


def swap(partition: Partition, draws: Draws, phases: Sequence[Phase]) -> list[Part] | None:
    """Exchange as many GPUs of one bin for GPUs of another between two groups."""
    del phases
    if (pair := _two(partition, draws)) is None:
        return None
    one, other = (partition[i] for i in pair)
    here, there = draws.pick(_used(one.counts)), draws.pick(_used(other.counts))
    if here == there:
        return None
    number = 1 + draws.below(min(one.counts[here], other.counts[there]))
    given, got = _only(one.counts, here, number), _only(other.counts, there, number)
    return _with(
        partition,
        {
            pair[0]: replace(one, counts=_plus(_minus(one.counts, given), got)),
            pair[1]: replace(other, counts=_plus(_minus(other.counts, got), given)),
        },
    )


def tune(partition: Partition, draws: Draws, phases: Sequence[Phase]) -> list[Part] | None:
    """Give a group another of its parallel configurations."""
    del phases
    at = draws.below(len(partition))
    part = partition[at]
    haste = draws.below(part.haste + 2)
    return None if haste == part.haste else _with(partition, {at: replace(part, haste=haste)})


MOVES: tuple[Move, ...] = (flip, split, merge, move, swap, tune)


def _with(partition: Partition, changed: dict[int, Part]) -> list[Part]:
    return [changed.get(i, part) for i, part in enumerate(partition)]


def _two(partition: Partition, draws: Draws) -> tuple[int, int] | None:
    if len(partition) < 2:  # noqa: PLR2004 - two are needed
        return None
    one = draws.below(len(partition))
    other = draws.below(len(partition) - 1)
    return one, other + (other >= one)


def _used(counts: Counts) -> list[int]:
    return [i for i, count in enumerate(counts) if count]


def _only(counts: Counts, index: int, number: int) -> Counts:
    return tuple(number if i == index else 0 for i in range(len(counts)))


def _plus(one: Counts, other: Counts) -> Counts:
    return tuple(a + b for a, b in zip(one, other, strict=True))


def _minus(one: Counts, other: Counts) -> Counts:
    return tuple(a - b for a, b in zip(one, other, strict=True))
