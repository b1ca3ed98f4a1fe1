"""Which groups prefill and which decode, when all else about them stays."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from dataclasses import replace
from itertools import product
from typing import TYPE_CHECKING

from thunderserve.control.planner.search import Bins
from thunderserve.core.plan import Phase

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence

    from thunderserve.control.planner.flow import Assessment, Evaluator, Seat

__all__ = ["SPLIT", "choose_phases"]

FLIP_COST = 1e-3
"""What a plan must gain to be worth one flip: this share of the requests that meet their bounds."""

HEADROOM = 1e-2
"""What all the capacity counts beside all the requests: a tenth more of it is worth one flip."""

SINGLES = 6
"""Groups of each phase whose flip is tried from one assignment."""

SWAPPED = 2
"""Groups of each phase that are tried in exchange for one another."""

SPLIT = (Phase.PREFILL, Phase.DECODE)
"""The phases between which a group can flip."""

_NOISE = 1e-9


def choose_phases(
    evaluator: Evaluator, seats: Sequence[Seat], choices: Mapping[str, Sequence[Phase]]
) -> Assessment:
    """Good phases among each group's choices; of equal ones, those nearest the present.

    Climbs by flips, of one group or of several that have most to gain, then by exchanges. What it
    ends at lets no fewer requests meet their bounds than the present phases do.
    """
    climb = _Climb(evaluator, seats, choices)
    best = climb.assess(seats)
    while (found := climb.step(best)) is not best:
        best = found
    return best


class _Climb:
    """Assignments of phases near one another, each assessed once."""

    def __init__(
        self, evaluator: Evaluator, present: Sequence[Seat], choices: Mapping[str, Sequence[Phase]]
    ) -> None:
        self._evaluator = evaluator
        self._phases = {seat.id: seat.phase for seat in present}
        able = [seat for seat in present if set(choices[seat.id]) == set(SPLIT)]
        # First those that prefill most for each request that they would decode instead.
        self._order = [seat.id for seat in sorted(able, key=self._advantage, reverse=True)]
        self._assessed: dict[Hashable, Assessment] = {}
        self._least_rps = self.assess(present).flow.attained_rps * (1 - _NOISE)
        alike = Bins(evaluator.problem.cluster).classes
        self._kinds = {node: kind for kind, nodes in enumerate(alike) for node in nodes}

    def _advantage(self, seat: Seat) -> float:
        prefill, decode = (self._evaluator.shapes.alone_rps(seat.design, way) for way in SPLIT)
        return prefill / decode if decode > 0 else math.inf

    def assess(self, seats: Sequence[Seat]) -> Assessment:
        """What the assignment is worth."""
        key = tuple(seat.phase for seat in seats)
        if key not in self._assessed:
            self._assessed[key] = self._evaluator.assess(seats)
        return self._assessed[key]

    def step(self, best: Assessment) -> Assessment:
        """A neighbour that is worthier, or the same."""
        for neighbours in (self._flips(best.seats), self._swaps(best.seats)):
            candidates = self._unlike(_flipped(best.seats, ids) for ids in neighbours)
            found = self._worthiest([best, *map(self.assess, candidates)])
            if found is not best:
                return found
        return best

    def _flips(self, seats: Sequence[Seat]) -> Iterator[Sequence[str]]:
        """Of one group, and of the two, four, eight ... that are foremost in the order."""
        for able in self._movable(seats):
            yield from ([name] for name in able[:SINGLES])
            yield from (able[: 2**power] for power in range(1, len(able).bit_length()))

    def _swaps(self, seats: Sequence[Seat]) -> Iterator[Sequence[str]]:
        yield from product(*(able[:SWAPPED] for able in self._movable(seats)))

    def _movable(self, seats: Sequence[Seat]) -> tuple[list[str], list[str]]:
        """Groups that prefill and may decode, and the reverse; those first that lose least."""
        phases = {seat.id: seat.phase for seat in seats}
        prefills = [name for name in reversed(self._order) if phases[name] is Phase.PREFILL]
        return prefills, [name for name in self._order if phases[name] is Phase.DECODE]

    def _worthiest(self, found: Sequence[Assessment]) -> Assessment:
        """The one that serves most, with most room to spare, for the fewest flips."""
        most = max(each.score for each in found) or 1.0
        widest = max(each.flow.capacity_rps for each in found) or 1.0

        def worth(each: Assessment) -> float:
            room = HEADROOM * each.flow.capacity_rps / widest
            return each.score / most + room - FLIP_COST * self._flips_in(each.seats)

        return max((f for f in found if f.flow.attained_rps >= self._least_rps), key=worth)

    def _flips_in(self, seats: Sequence[Seat]) -> int:
        return sum(seat.phase is not self._phases[seat.id] for seat in seats)

    def _unlike(self, candidates: Iterable[list[Seat]]) -> list[list[Seat]]:
        """One of those that only the names of alike groups and nodes tell apart: the nearest."""
        nearest: dict[Hashable, list[Seat]] = {}
        for seats in sorted(candidates, key=self._flips_in):
            nearest.setdefault(self._kind_of(seats), seats)
        return list(nearest.values())

    def _kind_of(self, seats: Sequence[Seat]) -> Hashable:
        """The assignment without names, but of nodes that a group shares with other nodes."""
        on_node: dict[tuple[str, ...], list[Hashable]] = defaultdict(list)
        for seat in seats:
            nodes = tuple(dict.fromkeys(stage.node for stage in seat.design.stages))
            shape = tuple((stage.layers, stage.types) for stage in seat.design.stages)
            on_node[nodes].append((shape, seat.phase))
        spanning = {node for nodes in on_node if len(nodes) > 1 for node in nodes}
        return frozenset(
            Counter(
                (
                    nodes if spanning.intersection(nodes) else self._kinds[nodes[0]],
                    frozenset(Counter(held).items()),
                )
                for nodes, held in on_node.items()
            ).items()
        )


def _flipped(seats: Sequence[Seat], ids: Sequence[str]) -> list[Seat]:
    other = dict(zip(SPLIT, reversed(SPLIT), strict=True))
    return [replace(s, phase=other[s.phase]) if s.id in ids else s for s in seats]
