"""How requests flow from prefill to decode groups: a linear program.

Maximising attainment under nothing but "shares sum to 1" sends everything down the best route. What
spreads the flow are capacities: of every group, of every node's port, and an attainment that falls
as a group fills. All of them are rows here.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING

import pulp

from thunderserve.control.planner.flow.flow import Flow, FlowProblem, Station
from thunderserve.control.planner.flow.symmetry import symmetric_pairs

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable, Mapping

    from thunderserve.core.plan import Phase

__all__ = ["solve_flow", "solve_uncapacitated"]

SERVED = 1e-3
"""What a request counts that is served but misses its bounds; one that meets them counts 1."""

IDLENESS = 1e-4
"""What an idle fleet counts: among equal flows, the one that keeps the fullest group emptiest."""

PHASE_IDLENESS = 1e-5
"""The same within each phase: groups that are not the bottleneck share their load too."""

SMALLEST = 1e-3
"""A group that is smaller than this share of the others is not kept as empty as they are."""


def solve_flow(problem: FlowProblem) -> Flow:
    """The flow that lets the most requests meet their bounds, or serves the most on target.

    Symmetric pairs get equal flows and are one variable. Demand beyond capacity is not served.
    """
    usable = {station.id: station for station in problem.stations if station.capacity_rps > 0}
    pairs = [i for i, p in enumerate(problem.pairs) if all(s in usable for s in p.stations)]
    if not pairs:
        return Flow((0.0,) * len(problem.pairs))
    orbits = symmetric_pairs(problem, pairs)
    solved = _Program(problem, usable, orbits).solve()
    rps = [0.0] * len(problem.pairs)
    for orbit, total in zip(orbits, solved.rps, strict=True):
        for index in orbit:
            rps[index] = total / len(orbit)
    return replace(solved, rps=tuple(rps), fullest_ratio=_fullest_ratio(problem, rps))


def solve_uncapacitated(problem: FlowProblem) -> Flow:
    """The flow when nothing is limited and load costs nothing: only its parts sum to the demand.

    For comparison: this program has an optimum on a single route, however many there are.
    """
    lp = pulp.LpProblem("uncapacitated", pulp.LpMaximize)
    flows = [lp.add_variable(f"flow_{i}", 0) for i in range(len(problem.pairs))]
    lp += _sum((flow, 1.0) for flow in flows) == (problem.demand_rps if flows else 0.0)
    ratios = (pair.attainment_ratio for pair in problem.pairs)
    attained = _sum(zip(flows, ratios, strict=True))
    lp += attained
    lp.solve(pulp.HiGHS(msg=False, threads=1))
    rps = tuple(flow.value() or 0.0 for flow in flows)
    value = float(attained.value() or 0.0)
    return Flow(rps, value, value, _fullest_ratio(problem, rps))


def _fullest_ratio(problem: FlowProblem, rps: Iterable[float]) -> float:
    loads: dict[str, float] = defaultdict(float)
    for pair, flow in zip(problem.pairs, rps, strict=True):
        for station in pair.stations:
            loads[station] += flow
    used = [station for station in problem.stations if loads[station.id] > 0]
    return max((loads[station.id] / station.capacity_rps for station in used), default=0.0)


class _Program:
    """The linear program over one variable for each orbit: its share of the demand."""

    def __init__(
        self, problem: FlowProblem, stations: Mapping[str, Station], orbits: list[list[int]]
    ) -> None:
        self._problem = problem
        self._stations = stations
        self._orbits = orbits
        # In shares of what can be served at most, so that every number is near 1.
        self._most = problem.most_rps()
        bounded = problem.target_ratio is None
        self._scale = min(problem.demand_rps, self._most) if bounded else self._most
        self._lp = pulp.LpProblem("flow", pulp.LpMaximize)
        self._flows = [self._lp.add_variable(f"flow_{i}", 0) for i in range(len(orbits))]
        # How full the fullest group is, of all and of every phase.
        self._fullest = self._lp.add_variable("fullest", 0, self._most / self._scale)
        self._totals: dict[Phase, float] = defaultdict(float)
        for station in stations.values():
            self._totals[station.phase] += station.capacity_rps
        self._fullest_of = {
            phase: self._lp.add_variable(f"fullest_{phase}", 0) for phase in self._totals
        }

    def solve(self) -> Flow:
        """The flow of every orbit."""
        losses = self._add_station_rows()
        self._add_port_rows()
        attained = self._attained(losses)
        served = _sum((flow, 1.0) for flow in self._flows)
        target = self._problem.target_ratio
        if target is None:
            self._lp += served <= self._problem.demand_rps / self._scale
            self._lp += attained + SERVED * served - self._busyness()
        else:
            self._lp += attained - target * served >= 0
            self._lp += served + SERVED * attained - self._busyness()
        status = self._lp.solve(pulp.HiGHS(msg=False, threads=1, presolve="off"))
        assert status == pulp.LpStatusOptimal, pulp.LpStatus[status]  # noqa: S101 - zero flow is always feasible and all flow is bounded
        return Flow(
            rps=tuple(self._scale * max(0.0, flow.value()) for flow in self._flows),
            attained_rps=self._scale * max(0.0, attained.value()),
            score=self._scale * self._lp.objective.value(),
        )

    def _busyness(self) -> pulp.LpAffineExpression:
        phases = [(variable, PHASE_IDLENESS) for variable in self._fullest_of.values()]
        return _sum([(self._fullest, IDLENESS), *phases])

    def _attained(self, losses: Iterable[tuple[pulp.LpVariable, float]]) -> pulp.LpAffineExpression:
        pairs = self._problem.pairs
        gains = [
            (flow, pairs[orbit[0]].attainment_ratio)
            for flow, orbit in zip(self._flows, self._orbits, strict=True)
        ]
        return _sum([*gains, *((part, -slope) for part, slope in losses)])

    def _add_station_rows(self) -> list[tuple[pulp.LpVariable, float]]:
        """Capacity and loss of every station; equal ones share their rows.

        Returns:
            Parts of loads, and what is lost of each.
        """
        classes: dict[Hashable, list[str]] = defaultdict(list)
        loads = self._loads()
        for name, station in self._stations.items():
            key = (station.phase, station.capacity_rps, station.losses, tuple(loads[name].items()))
            classes[key].append(name)
        losses: list[tuple[pulp.LpVariable, float]] = []
        for members in classes.values():
            station, load = self._stations[members[0]], loads[members[0]]
            terms = [(self._flows[i], share) for i, share in load.items()]
            self._add_capacity_rows(station, terms)
            if station.losses:
                parts = [
                    (self._lp.add_variable(f"part_{len(losses) + i}", 0, width), slope)
                    for i, (width, slope) in enumerate(self._pieces(station))
                ]
                self._lp += _sum([*terms, *((part, -1.0) for part, _ in parts)]) == 0
                losses += [(part, slope * len(members)) for part, slope in parts]
        return losses

    def _pieces(self, station: Station) -> list[tuple[float | None, float]]:
        """Widths and slopes of the straight pieces of a station's loss; the last has no end.

        The loss is convex, so the optimum fills the pieces in order.
        """
        lines = [(0.0, 0.0), *station.losses]
        starts = [
            (offset - before) / (slope - flatter)
            for (flatter, before), (slope, offset) in pairwise(lines)
        ]
        ends = [start / self._scale for start in starts]
        widths = [high - low for low, high in pairwise([0.0, *ends])]
        return list(zip([*widths, None], (slope for slope, _ in lines), strict=True))

    def _add_capacity_rows(
        self, station: Station, terms: list[tuple[pulp.LpVariable, float]]
    ) -> None:
        """A station's load fits, and is no fuller than the fullest, of all and of its phase.

        The fullest is as full as can be at `most / scale`, which bounds all but tiny stations.
        """
        capacity = station.capacity_rps
        of_all = max(capacity / self._most, SMALLEST)
        if of_all * self._most > capacity:
            self._lp += _sum(terms) <= capacity / self._scale
        self._lp += _sum([*terms, (self._fullest, -of_all)]) <= 0
        of_phase = max(capacity / self._totals[station.phase], SMALLEST)
        self._lp += _sum([*terms, (self._fullest_of[station.phase], -of_phase)]) <= 0

    def _loads(self) -> dict[str, dict[int, float]]:
        """The share of every orbit that goes through each station."""
        through: dict[str, dict[int, float]] = {name: {} for name in self._stations}
        for i, orbit in enumerate(self._orbits):
            pairs = (self._problem.pairs[index] for index in orbit)
            visits = Counter(station for pair in pairs for station in pair.stations)
            for station, times in visits.items():
                through[station][i] = times / len(orbit)
        return through

    def _add_port_rows(self) -> None:
        loads: dict[str, dict[int, float]] = defaultdict(lambda: defaultdict(float))
        for i, orbit in enumerate(self._orbits):
            for pair in orbit:
                for port, sent in self._problem.pairs[pair].bytes:
                    loads[port][i] += sent / len(orbit)
        rows = {
            tuple((i, self._scale * sent / self._problem.ports[port]) for i, sent in load.items())
            for port, load in loads.items()
        }
        for row in sorted(rows):
            self._lp += _sum((self._flows[i], share) for i, share in row) <= 1


def _sum(terms: Iterable[tuple[pulp.LpVariable, float]]) -> pulp.LpAffineExpression:
    return pulp.LpAffineExpression(list(terms))
