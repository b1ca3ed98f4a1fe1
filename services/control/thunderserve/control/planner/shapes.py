"""What groups can do, by shape; two groups of one shape (layers, GPU types, links) share it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from thunderserve.control.planner.design import Design, replica_of
from thunderserve.control.planner.figures import (
    BREAKPOINTS,
    GroupFigures,
    Transfer,
    decode_figures,
    decode_ratio,
    loss_lines,
    prefill_figures,
)
from thunderserve.control.planner.flow import Station
from thunderserve.core.kv_volume import kv_wire_bytes
from thunderserve.core.plan import Phase

if TYPE_CHECKING:
    from thunderserve.control.planner.problem import Problem
    from thunderserve.core.cost import Replica
    from thunderserve.core.hardware import Link

__all__ = ["Shapes"]


class Shapes:
    """Figures, stations and attainment of one problem's groups, each computed once."""

    def __init__(self, problem: Problem) -> None:
        self._problem = problem
        self._cost = problem.cost
        self._replicas: dict[Design, Replica] = {}
        self._figures: dict[tuple[Replica, Phase], GroupFigures] = {}
        self._stations: dict[tuple[Replica, Phase, tuple[Link, ...]], Station] = {}
        self._ratios: dict[tuple[Replica, Phase, Replica, Transfer], float] = {}

    def replica(self, design: Design) -> Replica:
        """The design's hardware."""
        if design not in self._replicas:
            self._replicas[design] = replica_of(design, self._problem.cluster)
        return self._replicas[design]

    def figures(self, design: Design, phase: Phase) -> GroupFigures:
        """What the design can do in that phase."""
        key = (self.replica(design), phase)
        if key not in self._figures:
            self._figures[key] = self._compute_figures(*key)
        return self._figures[key]

    def _compute_figures(self, replica: Replica, phase: Phase) -> GroupFigures:
        problem = self._problem
        return GroupFigures(
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

    def station(self, design: Design, phase: Phase) -> Station:
        """A group of that design as the flow sees it, without an id."""
        cluster = self._problem.cluster
        ports = tuple(cluster.node(stage.node).network for stage in design.stages)
        key = (self.replica(design), phase, ports)
        if key not in self._stations:
            self._stations[key] = self._compute_station(design, phase)
        return self._stations[key]

    def _compute_station(self, design: Design, phase: Phase) -> Station:
        capacity = self.figures(design, phase).capacity_rps
        losses: tuple[tuple[float, float], ...] = ()
        if capacity > 0:
            losses = loss_lines(capacity, lambda load: self._attained(design, phase, load))
        return Station("", phase, capacity, losses)

    def _attained(self, design: Design, phase: Phase, load_rps: float) -> float:
        """Share of requests that meet the bounds that depend on this group."""
        figures, slo = self.figures(design, phase), self._problem.slo
        if figures.capacity_rps <= 0:
            return 0.0
        ratio = 1.0
        if phase is not Phase.DECODE:
            ratio *= figures.ttft_ratio(load_rps, slo.ttft_s)
        if phase is not Phase.PREFILL:
            arriving = Transfer() if phase is Phase.COLOCATED else self._port_transfer(design)
            step_s = figures.step_s(load_rps)
            ratio *= decode_ratio(step_s, arriving, slo, self._problem.workload)
        return ratio

    def idle_ratio(self, design: Design, phase: Phase) -> float:
        """Share of requests that meet the bounds that depend on this group while it is idle."""
        return self._attained(design, phase, 0.0)

    def alone_rps(self, design: Design, phase: Phase) -> float:
        """The most requests per second of which a group could meet its part of the bounds."""
        station = self.station(design, phase)
        idle = self.idle_ratio(design, phase)
        loads = [share * station.capacity_rps for share in BREAKPOINTS]
        return max(load * idle - station.loss_rps(load) for load in loads)

    def transfer(self, link: Link, share: float) -> Transfer:
        """Moving a share of every token's KV cache over a link."""
        per_token = share * kv_wire_bytes(self._problem.model, 1, self._problem.wire_mode)
        return Transfer(self._cost.transfer_s(per_token, link) - link.latency_s, link.latency_s)

    def _port_transfer(self, design: Design) -> Transfer:
        """What a KV cache takes through the ports of the group's nodes."""
        nodes = design.nodes
        moves = [
            self.transfer(self._problem.cluster.node(node).network, nodes.count(node) / len(nodes))
            for node in dict.fromkeys(nodes)
        ]
        return max(moves, key=lambda move: move.s_per_token)

    def pair_ratio(
        self, prefill: tuple[Design, Phase], decode: tuple[Design, Phase], transfer: Transfer
    ) -> float:
        """Share of requests that meet their bounds when both groups are idle."""
        key = (self.replica(prefill[0]), prefill[1], self.replica(decode[0]), transfer)
        if key not in self._ratios:
            first, later = self.figures(*prefill), self.figures(*decode)
            self._ratios[key] = self._compute_ratio(first, later, transfer)
        return self._ratios[key]

    def _compute_ratio(self, first: GroupFigures, later: GroupFigures, transfer: Transfer) -> float:
        if min(first.capacity_rps, later.capacity_rps) <= 0:
            return 0.0
        slo, latency_s = self._problem.slo, first.prefill.latency_s
        step_s = later.step_s(0.0)
        in_time = decode_ratio(step_s, transfer, slo, self._problem.workload, latency_s)
        return first.ttft_ratio(0.0, slo.ttft_s) * in_time
