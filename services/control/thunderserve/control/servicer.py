"""ControlService: what operators, routers and workers ask."""
# ruff: noqa: N802 - the methods bear the contract's names

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from thunderserve.api.control.v1 import control_pb2
from thunderserve.api.control.v1.control_pb2_grpc import ControlServiceServicer
from thunderserve.control.forwarding import by_leader
from thunderserve.control.inventory import nodes_of
from thunderserve.control.paging import page_of
from thunderserve.control.pursuit import DEFAULT_DRAIN_TIMEOUT_S
from thunderserve.core.errors import InvalidArgumentError, NotFoundError
from thunderserve.core.workload import Workload
from thunderserve.wire.enums import phase_from_proto
from thunderserve.wire.events import event_to_proto
from thunderserve.wire.fleet import (
    flip_to_proto,
    group_status_to_proto,
    node_to_proto,
    worker_to_proto,
)
from thunderserve.wire.links import link_to_proto
from thunderserve.wire.plans import plan_from_proto, plan_to_proto

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import grpc

    from thunderserve.api.types.v1 import types_pb2
    from thunderserve.control.dumps import Dumps
    from thunderserve.control.flips import Flips
    from thunderserve.control.forwarding import Forwarder
    from thunderserve.control.journal import Journal
    from thunderserve.control.observer import Observer
    from thunderserve.control.operations import Operations
    from thunderserve.control.publisher import Publisher

    _Context = grpc.aio.ServicerContext[Any, Any]

__all__ = ["ControlServicer"]

_REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]{0,128}")


class ControlServicer(ControlServiceServicer):
    """Translates; every decision is elsewhere."""

    def __init__(
        self,
        *,
        observer: Observer,
        publisher: Publisher,
        flips: Flips,
        operations: Operations,
        journal: Journal,
        dumps: Dumps,
        forwarder: Forwarder,
    ) -> None:
        self.forwarder = forwarder
        self._observer = observer
        self._publisher = publisher
        self._flips = flips
        self._operations = operations
        self._journal = journal
        self._dumps = dumps

    async def GetNode(
        self, request: control_pb2.GetNodeRequest, context: _Context
    ) -> control_pb2.Node:
        """A host with live workers."""
        del context
        for node in nodes_of(self._observer.inventory):
            if node.id == request.id:
                return node_to_proto(node)
        raise NotFoundError(f"there is no node {request.id!r}")

    async def ListNodes(
        self, request: control_pb2.ListNodesRequest, context: _Context
    ) -> control_pb2.ListNodesResponse:
        """The hosts with live workers, by id."""
        del context
        nodes = nodes_of(self._observer.inventory)
        page, token = page_of(nodes, request.page_size, request.page_token)
        return control_pb2.ListNodesResponse(nodes=map(node_to_proto, page), next_page_token=token)

    async def GetGroup(
        self, request: control_pb2.GetGroupRequest, context: _Context
    ) -> control_pb2.GroupStatus:
        """A group and where it stands."""
        del context
        return group_status_to_proto(self._operations.group(request.id))

    async def ListGroups(
        self, request: control_pb2.ListGroupsRequest, context: _Context
    ) -> control_pb2.ListGroupsResponse:
        """All groups, by id."""
        del context
        groups = self._operations.groups()
        page, token = page_of(groups, request.page_size, request.page_token)
        return control_pb2.ListGroupsResponse(
            groups=map(group_status_to_proto, page), next_page_token=token
        )

    async def ListLinks(
        self, request: control_pb2.ListLinksRequest, context: _Context
    ) -> control_pb2.ListLinksResponse:
        """Measured links between live groups, by from and to."""
        del context
        links = self._operations.links()
        page, token = page_of(links, request.page_size, request.page_token)
        return control_pb2.ListLinksResponse(links=map(link_to_proto, page), next_page_token=token)

    async def GetPlan(
        self, request: control_pb2.GetPlanRequest, context: _Context
    ) -> types_pb2.Plan:
        """The plan of an epoch, or the current one."""
        del context
        if request.epoch:
            return plan_to_proto(await self._publisher.plan(request.epoch))
        return plan_to_proto(self._operations.standing().plan)

    async def ListPlans(
        self, request: control_pb2.ListPlansRequest, context: _Context
    ) -> control_pb2.ListPlansResponse:
        """Published plans, newest first."""
        del context
        plans = await self._publisher.plans()
        page, token = page_of(plans, request.page_size, request.page_token)
        return control_pb2.ListPlansResponse(plans=map(plan_to_proto, page), next_page_token=token)

    async def ComputePlan(
        self, request: control_pb2.ComputePlanRequest, context: _Context
    ) -> types_pb2.Plan:
        """A plan over the live groups, not published."""
        del context
        workload = Workload.from_means(
            rate_rps=request.request_rate_rps,
            prompt_tokens=request.prompt_token_count,
            output_tokens=request.output_token_count,
        )
        plan = await self._operations.compute(
            workload, seed=request.seed, keep_phases=request.keep_phases
        )
        return plan_to_proto(plan)

    async def PredictPlan(
        self, request: control_pb2.PredictPlanRequest, context: _Context
    ) -> types_pb2.Plan:
        """A plan and what is to be expected of it."""
        del context
        workload = None
        if request.request_rate_rps:
            workload = Workload.from_means(
                rate_rps=request.request_rate_rps,
                prompt_tokens=request.prompt_token_count,
                output_tokens=request.output_token_count,
            )
        plan = plan_from_proto(request.plan)
        return plan_to_proto(await self._operations.predict(plan, workload))

    @by_leader
    async def ApplyPlan(
        self, request: control_pb2.ApplyPlanRequest, context: _Context
    ) -> types_pb2.Plan:
        """Publish routes and phases."""
        del context
        plan = await self._operations.apply(
            plan_from_proto(request.plan),
            expected_epoch=request.expected_epoch,
            validate_only=request.validate_only,
            request_id=_checked_id(request.request_id),
        )
        return plan_to_proto(plan)

    async def WatchPlan(
        self, request: control_pb2.WatchPlanRequest, context: _Context
    ) -> AsyncIterator[control_pb2.WatchPlanResponse]:
        """The current plan unless it is known, then every later one."""
        del context
        known_epoch = request.known_epoch
        async for _ in self._observer.changes():
            standing = self._observer.standing
            if standing is not None and standing.plan.epoch > known_epoch:
                known_epoch = standing.plan.epoch
                plan, workers = standing.view
                yield control_pb2.WatchPlanResponse(
                    plan=plan_to_proto(plan), workers=map(worker_to_proto, workers)
                )

    @by_leader
    async def FlipGroup(
        self, request: control_pb2.FlipGroupRequest, context: _Context
    ) -> control_pb2.Flip:
        """Change a group's phase; answers when the flip has ended."""
        del context
        timeout_s = DEFAULT_DRAIN_TIMEOUT_S
        if request.HasField("drain_timeout"):
            timeout_s = request.drain_timeout.ToTimedelta().total_seconds()
        flip = await self._flips.flip(
            request.group_id,
            phase_from_proto(request.phase),
            drain_timeout_s=timeout_s,
            flip_id=_checked_id(request.request_id),
            validate_only=request.validate_only,
        )
        return flip_to_proto(flip)

    async def GetFlip(
        self, request: control_pb2.GetFlipRequest, context: _Context
    ) -> control_pb2.Flip:
        """A flip as it was recorded last."""
        del context
        return flip_to_proto(await self._flips.get(request.id))

    async def ListFlips(
        self, request: control_pb2.ListFlipsRequest, context: _Context
    ) -> control_pb2.ListFlipsResponse:
        """Flips, newest first."""
        del context
        flips = await self._flips.all()
        page, token = page_of(flips, request.page_size, request.page_token)
        return control_pb2.ListFlipsResponse(flips=map(flip_to_proto, page), next_page_token=token)

    @by_leader
    async def DrainGroup(
        self, request: control_pb2.DrainGroupRequest, context: _Context
    ) -> control_pb2.GroupStatus:
        """Take a group out of the routes."""
        del context
        status = await self._operations.set_drained(
            request.group_id, drained=True, validate_only=request.validate_only
        )
        return group_status_to_proto(status)

    @by_leader
    async def UndrainGroup(
        self, request: control_pb2.UndrainGroupRequest, context: _Context
    ) -> control_pb2.GroupStatus:
        """Put a group back."""
        del context
        status = await self._operations.set_drained(
            request.group_id, drained=False, validate_only=request.validate_only
        )
        return group_status_to_proto(status)

    async def ListEvents(
        self, request: control_pb2.ListEventsRequest, context: _Context
    ) -> control_pb2.ListEventsResponse:
        """What was written, newest first."""
        del context
        events = await self._journal.events()
        page, token = page_of(events, request.page_size, request.page_token)
        return control_pb2.ListEventsResponse(
            events=map(event_to_proto, page), next_page_token=token
        )

    async def DumpStore(
        self, request: control_pb2.DumpStoreRequest, context: _Context
    ) -> control_pb2.DumpStoreResponse:
        """Everything but leases."""
        del request, context
        records = await self._dumps.dump()
        standing = self._observer.standing
        return control_pb2.DumpStoreResponse(
            fleet=self._dumps.fleet,
            epoch=standing.plan.epoch if standing else 0,
            records=[control_pb2.StoreRecord(key=k, value=v) for k, v in records.items()],
        )

    @by_leader
    async def RestoreStore(
        self, request: control_pb2.RestoreStoreRequest, context: _Context
    ) -> control_pb2.RestoreStoreResponse:
        """Go on from a dump's plan."""
        del context
        restored = await self._dumps.restore(
            {record.key: record.value for record in request.records},
            allow_older=request.allow_older,
            validate_only=request.validate_only,
        )
        return control_pb2.RestoreStoreResponse(epoch=restored.epoch, record_count=restored.records)


def _checked_id(request_id: str) -> str:
    """A request's id becomes part of a key."""
    if not _REQUEST_ID.fullmatch(request_id):
        raise InvalidArgumentError(
            f"request_id {request_id!r} must be at most 128 letters, digits and . _ : -",
            param="request_id",
        )
    return request_id
