"""A fake control plane for operators' tools: a fixed fleet that remembers what it was asked."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field, replace
from typing import Any

from event_samples import ListsEvents
from link_samples import ListsLinks

from thunderserve.api.control.v1 import control_pb2, control_pb2_grpc
from thunderserve.core.errors import ThunderServeError
from thunderserve.core.fleet import Flip, FlipStep, GroupState, GroupStatus, Heartbeat, Node
from thunderserve.core.plan import Gpu, Group, Phase, Plan, Prediction, Route, Stage
from thunderserve.wire.fleet import flip_to_proto, group_status_to_proto, node_to_proto
from thunderserve.wire.plans import plan_from_proto, plan_to_proto


def make_group(group_id: str, index: int, phase: Phase) -> Group:
    """One GPU, one stage."""
    return Group(group_id, phase, 1, 1, (Stage(8, (Gpu(f"n0/{index}", "CPU"),)),))


GROUPS = (
    make_group("g0", 0, Phase.PREFILL),
    make_group("g1", 1, Phase.DECODE),
    make_group("g2", 2, Phase.DECODE),
)
PLAN = Plan(
    epoch=7,
    strategy="thunderserve",
    seed=0,
    model="m",
    groups=GROUPS,
    routes=(Route("g0", "g1", 0.3), Route("g0", "g2", 0.7)),
    created_unix_s=1_790_000_000.0,
    reason="first plan",
)
FLIP = Flip("f1", "g2", Phase.DECODE, Phase.PREFILL, FlipStep.DONE, "", 0.5, 0.25, 1.0, 9, 1.79e9)


@dataclass
class FakeControl(ListsLinks, ListsEvents, control_pb2_grpc.ControlServiceServicer):
    """One fixed fleet; remembers what it was asked. Lists come one item to a page."""

    requests: list[Any] = field(default_factory=list)
    failure: ThunderServeError | None = None
    flip: Flip = FLIP
    plan: Plan = PLAN
    delay_s: float = 0.0

    async def _note(self, request: Any) -> None:
        self.requests.append(request)
        if self.failure is not None:
            raise self.failure
        await asyncio.sleep(self.delay_s)

    async def ListNodes(self, request: Any, context: Any) -> Any:
        del context
        await self._note(request)
        nodes = [Node(f"n{i}", (Gpu(f"n{i}/0", "CPU"),), (f"g{i}",)) for i in range(3)]
        page = int(request.page_token or 0)
        following = str(page + 1) if page + 1 < len(nodes) else ""
        return control_pb2.ListNodesResponse(
            nodes=[node_to_proto(nodes[page])], next_page_token=following
        )

    async def ListGroups(self, request: Any, context: Any) -> Any:
        del context
        await self._note(request)
        statuses = [
            GroupStatus(GROUPS[0], GroupState.SERVING, None, Heartbeat(7, 2, Phase.PREFILL, 1, 99)),
            GroupStatus(GROUPS[1], GroupState.LOST),
        ]
        return control_pb2.ListGroupsResponse(groups=[group_status_to_proto(s) for s in statuses])

    async def GetPlan(self, request: Any, context: Any) -> Any:
        del context
        await self._note(request)
        return plan_to_proto(self.plan)

    async def ListPlans(self, request: Any, context: Any) -> Any:
        del context
        await self._note(request)
        return control_pb2.ListPlansResponse(plans=[plan_to_proto(self.plan)])

    async def ComputePlan(self, request: Any, context: Any) -> Any:
        del context
        await self._note(request)
        return plan_to_proto(self.plan)

    async def PredictPlan(self, request: Any, context: Any) -> Any:
        """Twice the goodput where a group's phase is not the plan's own."""
        del context
        await self._note(request)
        plan = plan_from_proto(request.plan)
        better = plan.groups != self.plan.groups
        predicted = Prediction(0.9, 4.0 if better else 2.0, 100.0, 0.5, 0.05, None)
        return plan_to_proto(replace(plan, predicted=predicted))

    async def ApplyPlan(self, request: Any, context: Any) -> Any:
        del context
        await self._note(request)
        plan_from_proto(request.plan)
        request.plan.epoch = 8
        return request.plan

    async def FlipGroup(self, request: Any, context: Any) -> Any:
        del context
        await self._note(request)
        return flip_to_proto(self.flip)

    async def ListFlips(self, request: Any, context: Any) -> Any:
        del context
        await self._note(request)
        return control_pb2.ListFlipsResponse(flips=[flip_to_proto(self.flip)])

    async def DrainGroup(self, request: Any, context: Any) -> Any:
        del context
        await self._note(request)
        return group_status_to_proto(GroupStatus(GROUPS[1], GroupState.DRAINED))

    async def UndrainGroup(self, request: Any, context: Any) -> Any:
        del context
        await self._note(request)
        return group_status_to_proto(GroupStatus(GROUPS[1], GroupState.SERVING))
