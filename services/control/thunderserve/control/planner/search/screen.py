"""What a layout may be worth, without a linear program: what its groups could do together.

A request costs what the groups on its way make it miss, and the next one always goes where it
costs least. Which pair of groups it meets, and what else uses their links, is left to the flow; so
this ranks neighbours, and the flow decides among the best.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from thunderserve.control.planner.flow import SERVED, Seat
from thunderserve.control.planner.problem import Objective
from thunderserve.core.kv_volume import kv_wire_bytes
from thunderserve.core.plan import Phase

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from thunderserve.control.planner.design import Design
    from thunderserve.control.planner.flow import Evaluator, Station
    from thunderserve.control.planner.search.blocks import Block

__all__ = ["Screen", "Supply", "segments"]

Segment = tuple[float, float]
"""Requests that miss their bounds of each one more; how many requests per second more."""

Curve = Counter[float]
"""Requests per second at each number that miss their bounds of each one more."""

HEADROOM = 1e-4
"""What room to spare counts, of the requests served: among equal layouts, the roomiest."""

_NEARER = 5e-3
"""How much less decode must miss of requests from its own block to be kept for them."""

_NOTHING = 1e-9
"""Requests per second that are left of a difference of equal numbers."""

_FINE, _COARSE, _FEW = 1e-3, 1e-2, 0.03
"""Misses are rounded, finely where they are few, so that a curve is short however many groups."""


@dataclass(frozen=True, slots=True)
class Supply:
    """What blocks can do in each phase."""

    prefill: Curve
    decode: Curve
    colocated: Curve

    def plus(self, changes: Iterable[tuple[Supply, int]]) -> Supply:
        """With so many times more of each."""
        total = Supply(self.prefill.copy(), self.decode.copy(), self.colocated.copy())
        for each, times in changes:
            _add(total.prefill, each.prefill, times)
            _add(total.decode, each.decode, times)
            _add(total.colocated, each.colocated, times)
        return total


class Screen:
    """Estimates of layouts, from curves of their blocks that are drawn once."""

    def __init__(
        self,
        evaluator: Evaluator,
        seats: Callable[[Block], Sequence[tuple[Phase, Design]]],
    ) -> None:
        self._problem = evaluator.problem
        self._evaluator = evaluator
        self._seats = seats
        self._supplies: dict[Block, Supply] = {}
        self._sent_bytes = kv_wire_bytes(
            self._problem.model, self._problem.workload.prompt.mean, self._problem.wire_mode
        )

    def supply(self, counted: Iterable[tuple[Block, int]]) -> Supply:
        """What so many of these blocks can do."""
        each = ((self.supply_of(block), count) for block, count in counted)
        return Supply(Counter(), Counter(), Counter()).plus(each)

    def supply_of(self, block: Block) -> Supply:
        """What one block can do."""
        if block not in self._supplies:
            self._supplies[block] = self._draw(block)
        return self._supplies[block]

    def value(self, supply: Supply) -> float:
        """Requests per second: what the objective asks for, about."""
        series = _in_series(supply.prefill.items(), supply.decode.items())
        gains = [(1 - miss, more) for miss, more in series]
        gains += [(1 - miss, more) for miss, more in supply.colocated.items() if more > _NOTHING]
        gains.sort(reverse=True)
        if self._problem.objective is Objective.CAPACITY:
            return _highest(gains, self._problem.target_ratio)
        return _attained(gains, self._problem.workload.rate_rps)

    def _draw(self, block: Block) -> Supply:
        by_phase: dict[Phase, list[Segment]] = defaultdict(list)
        within: list[Segment] = []
        held = self._seats(block)
        for phase, design in held:
            station = self._evaluator.station(Seat("", phase, design))
            missed = 1 - self._evaluator.shapes.idle_ratio(design, phase)
            pieces = segments(station)
            by_phase[phase] += [(missed + slope, more) for slope, more in pieces]
            if phase is Phase.DECODE:
                near = min(missed, self._missed_within(design, held))
                within += [(near + slope, more) for slope, more in pieces]
        prefill, decode = sorted(by_phase[Phase.PREFILL]), sorted(by_phase[Phase.DECODE])
        both = by_phase[Phase.COLOCATED]
        if prefill and any(
            near < far - _NEARER for (near, _), (far, _) in zip(sorted(within), decode, strict=True)
        ):
            both += _in_series(prefill, within)
            taken = min(_total(prefill), _total(within))
            prefill, decode = _beyond(prefill, taken), _beyond(decode, taken)
        out_rps, in_rps = (self._through(held, way) for way in ("out", "in"))
        return Supply(
            _rounded(_cut(prefill, out_rps + _total(decode))),
            _rounded(_cut(decode, in_rps + _total(prefill))),
            _rounded(both),
        )

    def _through(self, held: Iterable[tuple[Phase, Design]], way: str) -> float:
        """Requests per second whose KV cache the ports of these groups' nodes let through."""
        nodes = dict.fromkeys(node for _, design in held for node in design.nodes)
        return sum(self._evaluator.ports[f"{node} {way}"] for node in nodes) / self._sent_bytes

    def _missed_within(self, decode: Design, held: Iterable[tuple[Phase, Design]]) -> float:
        """What decode misses of requests that a group of the same block prefilled."""
        evaluator, shapes = self._evaluator, self._evaluator.shapes
        later = Seat("d", Phase.DECODE, decode)
        missed = [1.0]
        for phase, design in held:
            degrees = {"tp": (design.tp, decode.tp), "pp": (design.pp, decode.pp)}
            if phase is Phase.PREFILL and self._problem.engine.can_transfer(**degrees):
                both = evaluator.pair(Seat("p", phase, design), later).attainment_ratio
                missed.append(max(0.0, shapes.idle_ratio(design, phase) - both))
        return min(missed)


def segments(station: Station) -> list[Segment]:
    """The pieces of a station's loss: slope and length, up to its capacity."""
    corners = [(0.0, 0.0, 0.0)]  # where a line begins to be the highest, its slope and offset
    for slope, offset in sorted(station.losses):
        while corners:
            start, below, height = corners[-1]
            if slope <= below:
                break
            at = max(0.0, (offset - height) / (slope - below))
            if at > start or (len(corners) == 1 and at >= start):
                corners.append((at, slope, offset))
                break
            corners.pop()
    ends = [*(start for start, _, _ in corners[1:]), math.inf]
    pieces = zip(corners, ends, strict=True)
    most = station.capacity_rps
    return [(slope, min(end, most) - start) for (start, slope, _), end in pieces if start < most]


def _add(total: Curve, more: Curve, times: int) -> None:
    for miss, rps in more.items():
        total[miss] += times * rps


def _rounded(curve: Iterable[Segment]) -> Curve:
    made: dict[float, float] = defaultdict(float)
    for miss, more in curve:
        step = _FINE if miss < _FEW else _COARSE
        made[round(miss / step) * step] += more
    return Counter(made)


def _cut(curve: Sequence[Segment], most: float) -> list[Segment]:
    """The curve up to that many requests per second."""
    kept: list[Segment] = []
    for miss, more in curve:
        if most <= 0:
            break
        kept.append((miss, min(more, most)))
        most -= more
    return kept


def _total(curve: Iterable[Segment]) -> float:
    return sum(more for _, more in curve)


def _beyond(curve: Iterable[Segment], taken: float) -> list[Segment]:
    """What is left of a curve when its cheapest requests are taken."""
    left = []
    for miss, more in curve:
        if more > taken:
            left.append((miss, more - taken))
        taken = max(0.0, taken - more)
    return left


def _in_series(first: Iterable[Segment], then: Iterable[Segment]) -> list[Segment]:
    """Requests that go through one of the first and one of the second, cheapest with cheapest."""
    made: list[Segment] = []
    ones, others = sorted(first, reverse=True), sorted(then, reverse=True)
    left_one = left_other = 0.0
    miss_one = miss_other = 0.0
    while True:
        if left_one <= _NOTHING:
            if not ones:
                return made
            miss_one, left_one = ones.pop()
        if left_other <= _NOTHING:
            if not others:
                return made
            miss_other, left_other = others.pop()
        more = min(left_one, left_other)
        made.append((miss_one + miss_other, more))
        left_one -= more
        left_other -= more


def _attained(gains: Iterable[Segment], demand_rps: float) -> float:
    """Requests in time, as the flow counts them, until demand is met or none is left."""
    worth, left, room = 0.0, demand_rps, 0.0
    for gain, more in gains:
        if gain + SERVED <= 0:
            break
        served = min(more, left)
        worth += served * (gain + SERVED)
        left -= served
        room += more
    used = demand_rps - left
    return worth - HEADROOM * used * used / room if room > 0 else 0.0


def _highest(gains: Iterable[Segment], target_ratio: float) -> float:
    """The highest rate of which the target share is in time."""
    surplus = served = 0.0
    for gain, more in gains:
        after = surplus + (gain - target_ratio) * more
        if after < 0:
            return served + surplus / (target_ratio - gain)
        surplus, served = after, served + more
    return served
