"""What an assignment of groups to phases is worth: figures, flow, score; remembered by shape."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from thunderserve.control.planner.design import Design, replica_of, transfer_shares
from thunderserve.control.planner.figures import (
    BREAKPOINTS,
    DecodeFigures,
    PrefillFigures,
    Transfer,
    decode_figures,
    decode_ratio,
    loss_lines,
    prefill_figures,
)
from thunderserve.control.planner.orchestration import (
    Flow,
    FlowProblem,
    Pair,
    Station,
    solve_flow,
)
from thunderserve.core.kv_volume import kv_wire_bytes
from thunderserve.core.plan import Phase

if TYPE_CHECKING:
    from collections.abc import Sequence

    from thunderserve.control.planner.problem import Problem
    from thunderserve.core.cost import Replica
    from thunderserve.core.hardware import Link

__all__ = ["Assessment", "Evaluator", "Figures", "Seat"]


@dataclass(frozen=True, slots=True)
class Seat:
    """A group: its id, its phase and how it holds the model."""

    id: str
    phase: Phase
    design: Design


@dataclass(frozen=True, slots=True)
class Figures:
    """What a group can do in its phase; colocated groups do both."""

    phase: Phase
    prefill: PrefillFigures
    decode: DecodeFigures

    @property
    def capacity_rps(self) -> float:
        """Requests per second, at most; 0 when the model does not fit."""
        if not self.decode.curve:
            return 0.0
        if self.phase is Phase.PREFILL:
            return self.prefill.capacity_rps
        if self.phase is Phase.DECODE:
            return self.decode.capacity_rps
        return 1 / (1 / self.prefill.capacity_rps + 1 / self.decode.capacity_rps)

    def ttft_ratio(self, load_rps: float, bound_s: float) -> float:
        """Share of first tokens in time at that load."""
        return self.prefill.ttft_ratio(load_rps, bound_s)

    def step_s(self, load_rps: float) -> float:
        """Seconds per token at that load; prefills of a colocated group come between the steps."""
        if self.phase is Phase.COLOCATED:
            left = max(1e-3, 1 - load_rps * self.prefill.mean_s)
            return self.decode.step_s(load_rps / left) / left
        return self.decode.step_s(load_rps)


@dataclass(frozen=True, slots=True)
class Assessment:
    """Groups, the flow between them and how it was posed."""

    seats: tuple[Seat, ...]
    problem: FlowProblem
    flow: Flow

    @property
    def score(self) -> float:
        """What the search maximises."""
        return self.flow.score

    def load_rps(self, seat_id: str) -> float:
        """Requests per second through a group."""
        flows = zip(self.problem.pairs, self.flow.rps, strict=True)
        return sum(rps for pair, rps in flows if seat_id in pair.stations)


class Evaluator:
    """Evaluates groups of one problem and remembers what depends on shape alone.

    Two groups of one shape (layers, GPU types, links) share their figures, two pairs of groups of
    one shape their attainment, so a move of the search costs what it changed and one flow.
    """

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        self.flows_solved = 0
        self._cost = problem.cost
        self._replicas: dict[Design, Replica] = {}
        self._figures: dict[tuple[Replica, Phase], Figures] = {}
        self._stations: dict[tuple[Replica, Phase, Link], Station] = {}
        self._shares: dict[tuple[Design, Design], dict[tuple[str, str], float]] = {}
        self._ratios: dict[tuple[Replica, Replica, Transfer, Phase], float] = {}

    def replica(self, design: Design) -> Replica:
        """The design's hardware."""
        if design not in self._replicas:
            self._replicas[design] = replica_of(design, self.problem.cluster)
        return self._replicas[design]

    def figures(self, design: Design, phase: Phase) -> Figures:
        """What the design can do in that phase."""
        key = (self.replica(design), phase)
        if key not in self._figures:
            self._figures[key] = self._compute_figures(*key)
        return self._figures[key]

    def _compute_figures(self, replica: Replica, phase: Phase) -> Figures:
        problem = self.problem
        return Figures(
            phase,
            prefill_figures(self._cost, replica, problem.workload),
            decode_figures(
                self._cost,
                replica,
                problem.workload,
                bound_s=problem.slo.tpot_s,
                max_batch=problem.engine.max_running_requests,
            ),
        )

    def alone_rps(self, design: Design, phase: Phase) -> float:
        """The most requests per second of which a group could meet its half of the bounds."""
        station = self.station(Seat("", phase, design))
        idle = self._attained(design, phase, 0.0)
        loads = [share * station.capacity_rps for share in BREAKPOINTS]
        losses = [
            max([0.0, *(slope * load - offset for slope, offset in station.losses)])
            for load in loads
        ]
        return max(load * idle - loss for load, loss in zip(loads, losses, strict=True))

    def station(self, seat: Seat) -> Station:
        """The group as the flow sees it."""
        port = self.problem.cluster.node(seat.design.stages[0].node).network
        key = (self.replica(seat.design), seat.phase, port)
        if key not in self._stations:
            self._stations[key] = self._compute_station(seat.design, seat.phase)
        known = self._stations[key]
        return Station(seat.id, known.phase, known.capacity_rps, known.losses)

    def _compute_station(self, design: Design, phase: Phase) -> Station:
        capacity = self.figures(design, phase).capacity_rps
        losses: tuple[tuple[float, float], ...] = ()
        if capacity > 0:
            losses = loss_lines(capacity, lambda load: self._attained(design, phase, load))
        return Station("", phase, capacity, losses)

    def _attained(self, design: Design, phase: Phase, load_rps: float) -> float:
        """Share of requests that meet the bounds that depend on this group."""
        figures, slo = self.figures(design, phase), self.problem.slo
        if figures.capacity_rps <= 0:
            return 0.0
        ratio = 1.0
        if phase is not Phase.DECODE:
            ratio *= figures.ttft_ratio(load_rps, slo.ttft_s)
        if phase is not Phase.PREFILL:
            arriving = Transfer() if phase is Phase.COLOCATED else self._port_transfer(design)
            step_s = figures.step_s(load_rps)
            ratio *= decode_ratio(step_s, arriving, slo, self.problem.workload)
        return ratio

    def _port_transfer(self, design: Design) -> Transfer:
        """What a KV cache takes through the ports of the group's nodes."""
        shares = transfer_shares(design, design)
        per_token = kv_wire_bytes(self.problem.model, 1, self.problem.wire_mode)
        cluster = self.problem.cluster
        times = [
            (self._cost.transfer_s(per_token * share, cluster.node(node).network), node)
            for (node, _), share in shares.items()
        ]
        slowest, node = max(times)
        latency_s = cluster.node(node).network.latency_s
        return Transfer(slowest - latency_s, latency_s)

    def pair(self, prefill: Seat, decode: Seat) -> Pair:
        """The route between two groups, or of one colocated group to itself."""
        transfer = self.transfer(prefill, decode)
        key = (self.replica(prefill.design), self.replica(decode.design), transfer, prefill.phase)
        if key not in self._ratios:
            self._ratios[key] = self._pair_ratio(prefill, decode, transfer)
        sent = self._sent_bytes(self._transfer_shares(prefill, decode))
        return Pair(prefill.id, decode.id, self._ratios[key], sent)

    def _transfer_shares(self, prefill: Seat, decode: Seat) -> dict[tuple[str, str], float]:
        if prefill.phase is Phase.COLOCATED:
            return {}
        ends = (prefill.design, decode.design)
        if ends not in self._shares:
            self._shares[ends] = transfer_shares(*ends)
        return self._shares[ends]

    def transfer(self, prefill: Seat, decode: Seat) -> Transfer:
        """Each pair of nodes moves its share at the same time; the slowest decides."""
        shares = self._transfer_shares(prefill, decode)
        per_token = kv_wire_bytes(self.problem.model, 1, self.problem.wire_mode)
        found = Transfer()
        for (start, end), share in shares.items():
            link = self.problem.cluster.link(start, end)
            seconds = self._cost.transfer_s(per_token * share, link) - link.latency_s
            found = max(found, Transfer(seconds, link.latency_s), key=lambda t: t.s_per_token)
        return found

    def _pair_ratio(self, prefill: Seat, decode: Seat, transfer: Transfer) -> float:
        first = self.figures(prefill.design, prefill.phase)
        later = self.figures(decode.design, decode.phase)
        if min(first.capacity_rps, later.capacity_rps) <= 0:
            return 0.0
        slo = self.problem.slo
        step_s = later.step_s(0.0)
        latency_s = first.prefill.latency_s
        in_time = decode_ratio(step_s, transfer, slo, self.problem.workload, latency_s)
        return first.ttft_ratio(0.0, slo.ttft_s) * in_time

    def _sent_bytes(self, shares: dict[tuple[str, str], float]) -> tuple[tuple[str, float], ...]:
        problem = self.problem
        each = kv_wire_bytes(problem.model, problem.workload.prompt.mean, problem.wire_mode)
        sent: dict[str, float] = {}
        for (start, end), share in shares.items():
            if start != end:
                for port in (f"{start} out", f"{end} in"):
                    sent[port] = sent.get(port, 0.0) + share * each
        return tuple(sent.items())

    @cached_property
    def _ports(self) -> dict[str, float]:
        ratio = self.problem.efficiency.link_ratio
        return {
            f"{node.id} {way}": node.network.bytes_per_s * ratio
            for node in self.problem.cluster.nodes
            for way in ("out", "in")
        }

    def assess(self, seats: Sequence[Seat], demand_rps: float | None = None) -> Assessment:
        """The best flow between these groups."""
        prefills = [seat for seat in seats if seat.phase is Phase.PREFILL]
        decodes = [seat for seat in seats if seat.phase is Phase.DECODE]
        pairs = [
            self.pair(prefill, decode)
            for prefill in prefills
            for decode in decodes
            if self.problem.engine.can_transfer(
                tp=(prefill.design.tp, decode.design.tp), pp=(prefill.design.pp, decode.design.pp)
            )
        ]
        pairs += [self.pair(seat, seat) for seat in seats if seat.phase is Phase.COLOCATED]
        posed = FlowProblem(
            demand_rps=demand_rps or self.problem.workload.rate_rps,
            stations=tuple(self.station(seat) for seat in seats),
            pairs=tuple(pairs),
            ports=self._ports,
        )
        self.flows_solved += 1
        return Assessment(tuple(seats), posed, solve_flow(posed))
