"""How requests flow from prefill to decode groups: a linear program.

Maximising attainment under nothing but "shares sum to 1" sends everything down the best route. What
spreads the flow are capacities: of every group, of every node's port, and an attainment that falls
as a group fills. All of them are rows here.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import pulp

from thunderserve.core.errors import InvalidArgumentError
from thunderserve.core.plan import Phase

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable

__all__ = ["Flow", "FlowProblem", "Pair", "Station", "solve_flow", "symmetric_pairs"]

SERVED = 1e-3
"""What a request counts that is served but misses its bounds; one that meets them counts 1."""

IDLENESS = 1e-4
"""What an idle fleet counts: among equal flows, the one that keeps the fullest group emptiest."""

PHASE_IDLENESS = 1e-5
"""The same within each phase: groups that are not the bottleneck share their load too."""


@dataclass(frozen=True, slots=True)
class Station:
    """A group as the flow sees it.

    Attributes:
        losses: (slope, offset) of lines; at a load, as many requests per second miss their bounds
            as the highest of 0 and slope * load - offset.
    """

    id: str
    phase: Phase
    capacity_rps: float
    losses: tuple[tuple[float, float], ...] = ()

    def loss_rps(self, load_rps: float) -> float:
        """Requests per second that miss their bounds at that load."""
        return max([0.0, *(slope * load_rps - offset for slope, offset in self.losses)])


@dataclass(frozen=True, slots=True)
class Pair:
    """A possible route.

    Attributes:
        attainment_ratio: Share of requests that meet their bounds when both groups are idle.
        bytes: What a request sends through each port, by port.
    """

    prefill: str
    decode: str
    attainment_ratio: float = 1.0
    bytes: tuple[tuple[str, float], ...] = ()

    @property
    def stations(self) -> tuple[str, ...]:
        """The groups on the way; one when it is colocated."""
        return tuple(dict.fromkeys((self.prefill, self.decode)))


@dataclass(frozen=True, slots=True)
class FlowProblem:
    """Demand, groups, routes between them and ports that the routes share."""

    demand_rps: float
    stations: tuple[Station, ...]
    pairs: tuple[Pair, ...]
    ports: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.demand_rps <= 0:
            raise InvalidArgumentError(
                f"demand_rps is {self.demand_rps}; it must be > 0", param="demand_rps"
            )


@dataclass(frozen=True, slots=True)
class Flow:
    """The solution.

    Attributes:
        rps: Of every pair, in the problem's order.
        attained_rps: Requests per second that meet their bounds.
        score: What was maximised, in requests per second.
        fullest_ratio: Load of the fullest group, of its capacity.
    """

    rps: tuple[float, ...]
    attained_rps: float = 0.0
    score: float = 0.0
    fullest_ratio: float = 0.0

    @property
    def served_rps(self) -> float:
        """Requests per second that are served."""
        return sum(self.rps)

    @property
    def capacity_rps(self) -> float:
        """Requests per second at which, scaled up as it is, the flow would fill a group."""
        return self.served_rps / self.fullest_ratio if self.fullest_ratio > 0 else 0.0


def solve_flow(problem: FlowProblem) -> Flow:
    """The flow that lets the most requests meet their bounds.

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
    return replace(solved, rps=tuple(rps))


class _Program:
    """The linear program over one variable for each orbit: its share of the demand."""

    def __init__(
        self, problem: FlowProblem, stations: Mapping[str, Station], orbits: list[list[int]]
    ) -> None:
        self._problem = problem
        self._stations = stations
        self._orbits = orbits
        # In shares of what can be served at most, so that every number is near 1.
        self._capacity = sum(station.capacity_rps for station in stations.values())
        self._scale = min(problem.demand_rps, self._capacity)
        self._lp = pulp.LpProblem("flow", pulp.LpMaximize)
        self._flows = [self._lp.add_variable(f"flow_{i}", 0) for i in range(len(orbits))]
        # How full the fullest group is, of every phase and of all; 1 if all shared all the demand.
        full = self._capacity / self._scale
        self._fullest = {
            phase: self._lp.add_variable(f"fullest_{phase}", 0, full)
            for phase in dict.fromkeys(station.phase for station in stations.values())
        }
        self._fullest_of_all = self._lp.add_variable("fullest", 0, full)

    def solve(self) -> Flow:
        """The flow of every orbit."""
        losses = self._add_station_rows()
        self._add_port_rows()
        self._lp += _sum((flow, 1.0) for flow in self._flows) <= (
            self._problem.demand_rps / self._scale
        )
        attained = self._attained(losses)
        served = _sum((flow, SERVED) for flow in self._flows)
        self._lp += attained + served - self._busyness()
        status = self._lp.solve(pulp.HiGHS(msg=False, threads=1))
        assert status == pulp.LpStatusOptimal, pulp.LpStatus[status]  # noqa: S101 - zero flow is always feasible and all flow is bounded
        return Flow(
            rps=tuple(self._scale * max(0.0, flow.value()) for flow in self._flows),
            attained_rps=self._scale * max(0.0, attained.value()),
            score=self._scale * self._lp.objective.value(),
            fullest_ratio=self._fullest_of_all.value() * self._scale / self._capacity,
        )

    def _busyness(self) -> pulp.LpAffineExpression:
        """How full the fullest group is, of all and of every phase, with their small weights."""
        for phase in self._fullest.values():
            self._lp += _sum([(phase, 1.0), (self._fullest_of_all, -1.0)]) <= 0
        phases = [(variable, PHASE_IDLENESS) for variable in self._fullest.values()]
        return _sum([(self._fullest_of_all, IDLENESS), *phases])

    def _attained(self, losses: Iterable[tuple[pulp.LpVariable, int]]) -> pulp.LpAffineExpression:
        pairs = self._problem.pairs
        gains = [
            (flow, pairs[orbit[0]].attainment_ratio)
            for flow, orbit in zip(self._flows, self._orbits, strict=True)
        ]
        return _sum([*gains, *((loss, -float(count)) for loss, count in losses)])

    def _add_station_rows(self) -> list[tuple[pulp.LpVariable, int]]:
        """Capacity and loss of every station; equal ones share their rows."""
        classes: dict[Hashable, list[str]] = defaultdict(list)
        loads = {name: self._load(name) for name in self._stations}
        for name, station in self._stations.items():
            key = (station.phase, station.capacity_rps, station.losses, tuple(loads[name].items()))
            classes[key].append(name)
        losses: list[tuple[pulp.LpVariable, int]] = []
        for members in classes.values():
            station, load = self._stations[members[0]], loads[members[0]]
            terms = [(self._flows[i], share) for i, share in load.items()]
            share = station.capacity_rps / self._capacity
            self._lp += _sum([*terms, (self._fullest[station.phase], -share)]) <= 0
            if station.losses:
                loss = self._lp.add_variable(f"loss_{len(losses)}", 0)
                losses.append((loss, len(members)))
                for slope, offset in station.losses:
                    scaled = [(flow, slope * part) for flow, part in terms]
                    self._lp += _sum([*scaled, (loss, -1.0)]) <= offset / self._scale
        return losses

    def _load(self, station: str) -> dict[int, float]:
        """The share of every orbit that goes through the station."""
        through = (
            (i, sum(station in self._problem.pairs[pair].stations for pair in orbit) / len(orbit))
            for i, orbit in enumerate(self._orbits)
        )
        return {i: share for i, share in through if share}

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
