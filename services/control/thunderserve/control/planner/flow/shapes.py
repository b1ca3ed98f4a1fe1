"""What groups can do, by shape; two groups of one shape (layers, GPU types, links) share it."""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from thunderserve.control.planner.design import Design, replica_of
from thunderserve.control.planner.flow.flow import Station
from thunderserve.control.planner.physics import (
    LOAD_SHARES,
    ColocatedFigures,
    DecodeFigures,
    FloatArray,
    GroupFigures,
    Levels,
    Ports,
    PrefillFigures,
    PromptTimes,
    Sample,
    Transfer,
    hull,
    loss_lines,
    most_on_target_rps,
    pair_in_time,
    prompt_times,
    until_best,
)
from thunderserve.control.planner.problem import Objective
from thunderserve.core.cost import Replica, StageHardware, StageRates
from thunderserve.core.kv_volume import kv_wire_bytes
from thunderserve.core.plan import Phase

if TYPE_CHECKING:
    from thunderserve.control.planner.physics import Points
    from thunderserve.control.planner.problem import Problem
    from thunderserve.core.hardware import Link, Node

__all__ = ["Shapes"]

_GROUPS_OF_A_NODE = 2
_WAITS_TOO = 2.0
_BESIDE = 1e-3
"""What requests in time count beside capacity, so that groups off target differ too."""


class Shapes:
    """Figures, stations and attainment of one problem's groups, each computed once.

    Args:
        problem: The problem.
        chunk_tokens: Of prompts, that are computed and sent at a time; the first that the engine
            offers when left out.
    """

    def __init__(self, problem: Problem, chunk_tokens: int | None = None) -> None:
        self._problem = problem
        self._chunk_tokens = chunk_tokens or problem.engine.chunk_tokens[0]
        self._cost = problem.cost
        self._sample = Sample.of(problem.workload)
        self._levels = Levels.of(problem.workload.arrivals)
        self._replicas: dict[Design, Replica] = {}
        self._figures: dict[tuple[Replica, Phase, tuple[Link, ...]], GroupFigures] = {}
        self._curves: dict[tuple[Replica, Phase, tuple[Link, ...]], tuple[float, Points]] = {}
        self._stations: dict[tuple[Replica, Phase, tuple[Link, ...]], Station] = {}
        self._keys: dict[tuple[Design, Phase], tuple[Replica, Phase, tuple[Link, ...]]] = {}
        self._ratios: dict[tuple[Replica, Phase, Replica, Transfer], float] = {}

    @property
    def sample(self) -> Sample:
        """The requests."""
        return self._sample

    @property
    def levels(self) -> Levels:
        """Of arrivals."""
        return self._levels

    def replica(self, design: Design) -> Replica:
        """The design's hardware."""
        if design not in self._replicas:
            self._replicas[design] = replica_of(design, self._problem.cluster)
        return self._replicas[design]

    def figures(self, design: Design, phase: Phase) -> GroupFigures:
        """What the design can do in that phase."""
        key = self._key(design, phase)
        if key not in self._figures:
            self._figures[key] = self._compute_figures(design, phase)
        return self._figures[key]

    def _compute_figures(self, design: Design, phase: Phase) -> GroupFigures:
        sample, chunk, replica = self._sample, self._chunk_tokens, self.replica(design)
        if phase is Phase.DECODE:
            # Memory is set aside while others prefill and send, and wait as long to send.
            sent_s = _WAITS_TOO * sample.mean(self._nominal_transfer_s(design))
            return self.decode_figures(replica, sample.mean(self.elsewhere.latency_s) + sent_s)
        rates = self._rates(replica)
        room = self._cost.kv_capacity_tokens(replica, chunk)
        if room < sample.resident_tokens:
            return GroupFigures(phase, sample)
        if phase is Phase.COLOCATED:
            both = ColocatedFigures.of(
                rates,
                sample,
                self._levels,
                chunk_tokens=chunk,
                room_tokens=room,
                max_batch=self._problem.engine.max_running_requests,
            )
            return GroupFigures(phase, sample, colocated=both)
        alone = PrefillFigures.of(rates, sample, self._levels, chunk_tokens=chunk, room_tokens=room)
        return GroupFigures(phase, sample, prefill=alone)

    def decode_figures(self, replica: Replica, hold_s: float) -> GroupFigures:
        """What a replica decodes when memory is set aside so long before a request decodes."""
        alone = DecodeFigures.of(
            self._rates(replica),
            self._sample,
            self._levels,
            room_tokens=self._cost.kv_capacity_tokens(replica),
            max_batch=self._problem.engine.max_running_requests,
            hold_s=hold_s,
        )
        return GroupFigures(Phase.DECODE, self._sample, decode=alone)

    def _rates(self, replica: Replica) -> tuple[StageRates, ...]:
        return tuple(self._cost.stage_rates(stage) for stage in replica)

    @cached_property
    def elsewhere(self) -> PromptTimes:
        """A guess at the prefill groups that a decode group works with.

        The quickest node, of which each has a half.
        """
        nodes = {(node.gpus, node.local): node for node in self._problem.cluster.nodes}
        times = (self._whole_node(node) for node in nodes.values())
        quickest = min(times, key=lambda each: self._sample.mean(each.latency_s))
        return replace(
            quickest,
            latency_s=_GROUPS_OF_A_NODE * quickest.latency_s,
            busy_s=_GROUPS_OF_A_NODE * quickest.busy_s,
            first_chunk_s=_GROUPS_OF_A_NODE * quickest.first_chunk_s,
        )

    @cached_property
    def ports(self) -> Ports:
        """What transfers wait for in ports."""
        return Ports(self._problem, self._sample, self._levels, self.elsewhere)

    def _whole_node(self, node: Node) -> PromptTimes:
        types = {kind.name: kind for kind in self._problem.cluster.types}
        gpus = tuple(types[gpu.type] for gpu in node.gpus)
        replica = (StageHardware(self._problem.model.layers, gpus, node.local),)
        return prompt_times(self._rates(replica), self._sample.prompt, self._chunk_tokens)

    def station(self, design: Design, phase: Phase) -> Station:
        """A group of that design as the flow sees it, without an id.

        Its capacity ends where more requests would put fewer in time.
        """
        key = self._key(design, phase)
        if key not in self._stations:
            idle_ratio, corners = self._curve(design, phase)
            capacity = corners[-1][0] if corners else 0.0
            self._stations[key] = Station("", phase, capacity, loss_lines(corners, idle_ratio))
        return self._stations[key]

    def _key(self, design: Design, phase: Phase) -> tuple[Replica, Phase, tuple[Link, ...]]:
        """What the group's figures depend on."""
        found = self._keys.get((design, phase))
        if found is None:
            cluster = self._problem.cluster
            ports = tuple(cluster.node(stage.node).network for stage in design.stages)
            found = self._keys[design, phase] = (self.replica(design), phase, ports)
        return found

    def _curve(self, design: Design, phase: Phase) -> tuple[float, Points]:
        """What is in time: the share when idle, and requests per second over the load."""
        key = self._key(design, phase)
        if key not in self._curves:
            loads = LOAD_SHARES * self.figures(design, phase).capacity_rps
            if loads[-1] > 0:
                ratios = self.ratios(design, phase, loads)
                self._curves[key] = float(ratios[0]), until_best(hull(loads, ratios))
            else:
                self._curves[key] = 0.0, []
        return self._curves[key]

    def ratios(self, design: Design, phase: Phase, load_rps: FloatArray) -> FloatArray:
        """Share of requests that meet the bounds that depend on this group, at each load."""
        exposed_s, first_s = None, None
        if phase is Phase.DECODE:
            exposed_s, first_s = self._nominal_transfer_s(design), self.elsewhere.latency_s
        met = self.figures(design, phase).in_time(
            load_rps, self._problem.slo, exposed_s=exposed_s, first_s=first_s
        )
        return self.share_of(met)

    def share_of(self, met: FloatArray) -> FloatArray:
        """Share of all requests, at each load, from probabilities (loads, levels, requests)."""
        share: FloatArray = met @ self._sample.share @ self._levels.request
        return share

    def idle_ratio(self, design: Design, phase: Phase) -> float:
        """Share of requests that meet the bounds that depend on this group while it is idle."""
        return self._curve(design, phase)[0]

    def alone_rps(self, design: Design, phase: Phase) -> float:
        """The most requests per second of which a group could meet its part of the bounds.

        For capacity, the most of which the target's share does.
        """
        _, corners = self._curve(design, phase)
        most = max((met for _, met in corners), default=0.0)
        if self._problem.objective is Objective.GOODPUT:
            return most
        return most_on_target_rps(corners, self._problem.target_ratio) + _BESIDE * most

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

    def _exposed_s(self, design: Design) -> FloatArray:
        """What a group that prefilled would expose of its transfers through its nodes' ports."""
        times = prompt_times(
            self._rates(self.replica(design)), self._sample.prompt, self._chunk_tokens
        )
        return self._port_transfer(design).exposed_s(self._sample.prompt, times)

    def port_exposed_s(self, design: Design) -> float:
        """Mean of what a group that prefilled would expose of its transfers."""
        return self._sample.mean(self._exposed_s(design))

    def late_by_transfer_ratio(self, design: Design) -> float:
        """Share of requests that such a transfer alone would make late."""
        spare_s = self._sample.steps * self._problem.slo.tpot_s
        late = (self._sample.steps > 0) & (self._exposed_s(design) > spare_s)
        return self._sample.mean(late.astype(np.float64))

    def _nominal_transfer_s(self, design: Design) -> FloatArray:
        """What a transfer through the group's ports takes when prefill hides all but a chunk."""
        moved = self._port_transfer(design)
        return moved.latency_s + moved.s_per_token * self.elsewhere.last_tokens

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
        met = pair_in_time(self._problem.slo, first, later, (0.0, 0.0), transfer=transfer)
        return float(self.share_of(met)[0])
