"""Leaves out columns that another column can always stand in for."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from thunderserve.core.plan import Phase

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable, Sequence

    from thunderserve.control.planner.certificate.columns import Column, Lane, Stock
    from thunderserve.control.planner.flow import Station

__all__ = ["undominated"]

_NO_LANE = -1.0


def undominated(stock: Stock) -> Stock:
    """The same stock without columns that are no better than another in anything.

    A column dominates another of its sites and phase that takes no fewer GPUs of any bin, if it
    serves as much, loses no more at any load, and every lane of the other's is a lane of its own
    with no lower ratio. Whatever a plan does with the other, it could do with the first.
    """
    for phase in Phase:
        stock = _thinned(stock, phase)
    return stock


def _thinned(stock: Stock, phase: Phase) -> Stock:
    groups: dict[Hashable, list[int]] = defaultdict(list)
    for index, column in enumerate(stock.columns):
        if column.phase is phase:
            groups[column.sites].append(index)
    worse = {index for members in groups.values() for index in _dominated(stock, members)}
    return _without(stock, worse) if worse else stock


def _without(stock: Stock, left_out: set[int]) -> Stock:
    kept = [index for index in range(len(stock.columns)) if index not in left_out]
    place = {index: at for at, index in enumerate(kept)}
    lanes = (
        replace(lane, prefill=place[lane.prefill], decode=place[lane.decode])
        for lane in stock.lanes
        if lane.prefill in place and lane.decode in place
    )
    columns = tuple(stock.columns[index] for index in kept)
    return replace(stock, columns=columns, lanes=tuple(lanes))


def _dominated(stock: Stock, members: Sequence[int]) -> Iterable[int]:
    """Members that another dominates; of equal ones, all but the first."""
    columns = [stock.columns[index] for index in members]
    counts = np.array([column.counts for column in columns])
    capacities = np.array([column.station.capacity_rps for column in columns])
    ratios = _ratios(stock.lanes, members)
    gone: set[int] = set()
    for at, column in enumerate(columns):
        better = (counts <= counts[at]).all(axis=1) & (capacities >= capacities[at])
        better &= (ratios >= ratios[at]).all(axis=1)
        better[at] = False
        if any(
            other not in gone and _loses_no_more(columns[other], column)
            for other in np.flatnonzero(better)
        ):
            gone.add(at)
    return {members[at] for at in gone}


def _ratios(
    lanes: Sequence[Lane], members: Sequence[int]
) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    """The ratio of every member's lane to every partner, by what it sends where."""
    row = {index: at for at, index in enumerate(members)}
    place: dict[Hashable, int] = {}
    found: list[tuple[int, int, float]] = []
    for lane in lanes:
        for own, other in ((lane.prefill, lane.decode), (lane.decode, lane.prefill)):
            if own in row:
                # A colocated column's partner is itself, whichever column it is.
                key = (None if own == other else other, lane.bytes)
                at = place.setdefault(key, len(place))
                found.append((row[own], at, lane.attainment_ratio))
    table = np.full((len(members), len(place)), _NO_LANE)
    for at, partner, ratio in found:
        table[at, partner] = ratio
    return table


def _loses_no_more(one: Column, other: Column) -> bool:
    """At any load that the other can take; both are convex, with corners where lines cross."""
    loads = {*_corners(one.station), *_corners(other.station), other.station.capacity_rps}
    within = (load for load in loads if 0 <= load <= other.station.capacity_rps)
    return all(one.station.loss_rps(load) <= other.station.loss_rps(load) for load in within)


def _corners(station: Station) -> Iterable[float]:
    for (slope, offset), (steeper, more) in pairwise([(0.0, 0.0), *station.losses]):
        if steeper > slope:
            yield (more - offset) / (steeper - slope)
