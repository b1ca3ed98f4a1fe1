"""The master problem: how many copies of every column, and what flows between them.

::

    most    attained                                     (or served, for capacity)
    where   the copies' GPUs fit into the nodes          (patterns of whole nodes, or bins)
            flow through a column <= capacity * copies
            loss of a column >= slope * flow - offset * copies, for each of its lines
            bytes through each port <= what it carries
            GPUs of groups that can flip >= the wanted share of all groups'
            flow <= demand                               (or attained >= target * served)

With copies and patterns whole and every node a site of its own, a solution is a plan and the best
one is the best plan: copies of one column on one node are equal, and as losses are convex, equal
groups do best under equal loads. Anything looser bounds it from above.

Source: Gilmore and Gomory, "A Linear Programming Approach to the Cutting-Stock Problem" (1961), for
patterns as columns, which make the relaxation tight.
"""

from __future__ import annotations

from collections import defaultdict
from itertools import pairwise
from types import MappingProxyType
from typing import TYPE_CHECKING

from thunderserve.control.planner.certificate.patterns import Pattern, patterns_of
from thunderserve.control.planner.certificate.program import Answer, Program
from thunderserve.control.planner.problem import Objective, Problem
from thunderserve.control.planner.search import can_flip
from thunderserve.core.plan import Phase

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from thunderserve.control.planner.certificate.columns import Column, Stock
    from thunderserve.control.planner.search import Counts

__all__ = ["Master"]

# Of one GPU: a node's prefill counts before all that it does otherwise.
_RANK = MappingProxyType({Phase.PREFILL: 1.0, Phase.DECODE: 0.0, Phase.COLOCATED: 1e-3})


class Master:
    """The master problem of one stock, as a program.

    Attributes:
        program: For more rows.
        copies: The variable of every column.
        flows: The variable of every lane, in requests per second.
        attained: Requests per second in time: variables and what each unit of them counts.
        cuts: Of every site that is cut into patterns, what part of a node each may be, with the
            variable that says how many nodes are cut so.
    """

    def __init__(
        self, problem: Problem, stock: Stock, parts: Mapping[int, Sequence[Counts]] | None = None
    ) -> None:
        """Write the rows.

        Args:
            problem: What is planned for.
            stock: What plans are made of.
            parts: Of some sites, the parts that a node may be taken in; others are taken whole.
        """
        self.program = Program()
        self._problem = problem
        self._stock = stock
        counted = problem.objective is Objective.CAPACITY
        self.copies = [self.program.add_variable(integer=True) for _ in stock.columns]
        self.flows = [
            self.program.add_variable(1.0 if counted else lane.attainment_ratio)
            for lane in stock.lanes
        ]
        self._losses: list[int] = []
        self._parts = parts or {}
        self.cuts: dict[int, list[tuple[Counts, int]]] = {}
        self._loads: dict[int, list[int]] = defaultdict(list)
        for flow, lane in zip(self.flows, stock.lanes, strict=True):
            for index in {lane.prefill, lane.decode}:
                self._loads[index].append(flow)
        self._add_packing_rows()
        for place, column in enumerate(stock.columns):
            self._add_station_rows(place, column, loss_gain=0.0 if counted else -1.0)
        self._add_port_rows()
        self._add_flippable_row()
        gains = zip(self.flows, (lane.attainment_ratio for lane in stock.lanes), strict=True)
        self.attained = [*gains, *((loss, -1.0) for loss in self._losses)]
        self._add_demand_row(counted=counted)

    def solve(self, *, integers: bool = True, time_limit_s: float = 600.0) -> Answer:
        """The best mix of columns."""
        return self.program.solve(integers=integers, time_limit_s=time_limit_s)

    def order(self, alike: Sequence[str]) -> None:
        """Leave out solutions that differ by which of alike nodes does what.

        Of two neighbours, the later has no more GPUs in prefill; of such, no more in groups that do
        both. Any solution can be put in that order, so none is lost but its mirror images.
        """
        places = {site.nodes[0]: index for index, site in enumerate(self._stock.sites)}
        for earlier, later in pairwise(alike):
            first, second = self._rank(places[earlier]), self._rank(places[later])
            self.program.add_row([*second, *((copy, -rank) for copy, rank in first)], 0.0)

    def _rank(self, site: int) -> list[tuple[int, float]]:
        """What orders a site: its copies, each with its rank."""
        columns = zip(self.copies, self._stock.columns, strict=True)
        ranks = [
            (copy, _RANK[c.phase] * sum(c.counts)) for copy, c in columns if c.sites == (site,)
        ]
        return [(copy, rank) for copy, rank in ranks if rank]

    def _add_packing_rows(self) -> None:
        cut: set[int] = set()
        for index in range(len(self._stock.sites)):
            if self._problem.engine.max_nodes == 1 and self._add_patterns(index):
                cut |= set(self._stock.sites[index].bins)
        for index, size in enumerate(self._stock.sizes):
            if size and index not in cut:
                columns = zip(self.copies, self._stock.columns, strict=True)
                terms = [(copy, float(c.counts[index])) for copy, c in columns if c.counts[index]]
                self.program.add_row(terms, float(size))

    def _add_patterns(self, index: int) -> bool:
        """Cut every node of a site into one of its patterns; False when there are too many."""
        site = self._stock.sites[index]
        held: dict[Counts, list[int]] = defaultdict(list)
        for copy, column in zip(self.copies, self._stock.columns, strict=True):
            if column.sites == (index,):
                held[tuple(column.counts[i] for i in site.bins)].append(copy)
        cuts: list[tuple[Pattern, int]] = []
        for part in self._parts.get(index, (site.sizes,)):
            patterns = patterns_of(part, list(held))
            if patterns is None:
                return False
            fresh = [(pattern, self.program.add_variable(integer=True)) for pattern in patterns]
            self.cuts.setdefault(index, []).extend((part, cut) for _, cut in fresh)
            cuts += fresh
        self.program.add_row([(cut, 1.0) for _, cut in cuts], float(len(site.nodes)))
        for counts, copies in held.items():
            slots = [(cut, -float(dict(p)[counts])) for p, cut in cuts if counts in dict(p)]
            self.program.add_row([*((copy, 1.0) for copy in copies), *slots], 0.0)
        return True

    def _add_station_rows(self, index: int, column: Column, *, loss_gain: float) -> None:
        copy, flows = self.copies[index], self._loads[index]
        terms = [(flow, 1.0) for flow in flows]
        self.program.add_row([*terms, (copy, -column.station.capacity_rps)], 0.0)
        if not column.station.losses:
            return
        loss = self.program.add_variable(loss_gain)
        self._losses.append(loss)
        for slope, offset in column.station.losses:
            load = [(flow, slope) for flow in flows]
            self.program.add_row([*load, (copy, -offset), (loss, -1.0)], 0.0)

    def _add_port_rows(self) -> None:
        sent: dict[str, list[tuple[int, float]]] = defaultdict(list)
        for flow, lane in zip(self.flows, self._stock.lanes, strict=True):
            for port, each in lane.bytes:
                sent[port].append((flow, each / self._stock.ports[port]))
        for terms in sent.values():
            self.program.add_row(terms, 1.0)

    def _add_flippable_row(self) -> None:
        """GPUs in groups that can flip are the wanted share of those in groups, at least."""
        wanted, engine = self._problem.flippable_ratio, self._problem.engine
        if wanted <= 0:
            return
        terms = [
            (copy, sum(column.counts) * (wanted - can_flip(column.phase, column.design.pp, engine)))
            for copy, column in zip(self.copies, self._stock.columns, strict=True)
        ]
        self.program.add_row(terms, 0.0)

    def _add_demand_row(self, *, counted: bool) -> None:
        if not counted:
            every = [(flow, 1.0) for flow in self.flows]
            self.program.add_row(every, self._problem.workload.rate_rps)
            return
        target = self._problem.target_ratio
        missing = [(variable, -gain) for variable, gain in self.attained]
        self.program.add_row([*missing, *((flow, target) for flow in self.flows)], 0.0)
