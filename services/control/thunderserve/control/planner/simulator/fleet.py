"""A simulated fleet: the plan's groups, the ports between them and the router before them."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from thunderserve.control.planner.simulator.colocated import ColocatedGroup
from thunderserve.control.planner.simulator.decode import DecodeGroup
from thunderserve.control.planner.simulator.events import Timeline
from thunderserve.control.planner.simulator.job import Job, Records
from thunderserve.control.planner.simulator.lanes import ColocatedLane, Lane, SplitLane
from thunderserve.control.planner.simulator.network import Network
from thunderserve.control.planner.simulator.prefill import PrefillGroup
from thunderserve.control.planner.simulator.report import GroupLoad, LinkLoad
from thunderserve.control.planner.simulator.router import Router
from thunderserve.core.plan import Phase

if TYPE_CHECKING:
    from thunderserve.control.planner.simulator.setting import Setting
    from thunderserve.core.plan import Route
    from thunderserve.core.trace import Trace

__all__ = ["Fleet"]


class Fleet:
    """Serves one trace."""

    def __init__(self, setting: Setting, records: Records) -> None:
        plan = setting.plan
        self._setting, self._records = setting, records
        self._timeline = Timeline()
        self._network = Network(setting.problem, setting.cost, self._timeline)
        ids = {phase: [g.id for g in plan.groups if g.phase is phase] for phase in Phase}
        self._prefill = {group: self._prefill_group(group) for group in ids[Phase.PREFILL]}
        self._decode = {group: self._decode_group(group) for group in ids[Phase.DECODE]}
        self._colocated = {group: self._colocated_group(group) for group in ids[Phase.COLOCATED]}
        self._lanes = {(r.prefill, r.decode): self._lane(r) for r in plan.routes if r.weight > 0}
        self._router = Router(plan, self._lanes, setting.policy.dispatch)
        self._accepted: Counter[str] = Counter()

    def serve(self, trace: Trace) -> None:
        """Let every request arrive, then let all that were accepted finish."""
        timeline = self._timeline
        for index, request in enumerate(trace.requests):
            while timeline.next_s <= request.arrival_s:
                timeline.run_next()
            job = Job(index, request.prompt_tokens, request.output_tokens)
            self._accept(job, request.arrival_s)
        while timeline.pending:
            timeline.run_next()

    def group_loads(self, duration_s: float) -> tuple[GroupLoad, ...]:
        """What every group did in that time."""
        groups: dict[str, PrefillGroup | DecodeGroup | ColocatedGroup]
        groups = {**self._prefill, **self._decode, **self._colocated}
        return tuple(
            GroupLoad(
                id=group.id,
                phase=group.phase,
                utilisation_ratio=groups[group.id].busy_s / duration_s,
                requests=self._accepted[group.id],
                kv_peak_ratio=groups[group.id].memory.peak_ratio,
            )
            for group in self._setting.plan.groups
        )

    def link_loads(self, duration_s: float) -> tuple[LinkLoad, ...]:
        """What every link carried in that time."""
        return tuple(
            LinkLoad(wire.source, wire.target, wire.sent_bytes, wire.busy_s / duration_s)
            for wire in self._network.wires
        )

    def _accept(self, job: Job, now_s: float) -> None:
        ends = self._router.route(job)
        if ends is not None:
            self._accepted.update(set(ends))
            self._lanes[ends].accept(now_s, job)

    def _prefill_group(self, group: str) -> PrefillGroup:
        return PrefillGroup(
            self._setting.timings[group],
            self._timeline,
            self._records,
            chunk_tokens=self._setting.chunk_tokens,
        )

    def _decode_group(self, group: str) -> DecodeGroup:
        return DecodeGroup(
            self._setting.timings[group],
            self._timeline,
            self._records,
            max_running=self._setting.problem.engine.max_running_requests,
        )

    def _colocated_group(self, group: str) -> ColocatedGroup:
        return ColocatedGroup(
            self._setting.timings[group],
            self._timeline,
            self._records,
            chunk_tokens=self._setting.chunk_tokens,
            max_running=self._setting.problem.engine.max_running_requests,
            batching=self._setting.policy.colocated,
        )

    def _lane(self, route: Route) -> Lane:
        if route.prefill in self._colocated:
            return ColocatedLane(self._colocated[route.prefill])
        designs = self._setting.designs
        return SplitLane(
            self._prefill[route.prefill],
            self._decode[route.decode],
            self._network.path(designs[route.prefill], designs[route.decode]),
            self._setting.policy.reservation,
        )
