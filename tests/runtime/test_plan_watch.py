"""Following plans over real gRPC: newest first, never back, through control's absence."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import grpc

from thunderserve.api.control.v1 import control_pb2
from thunderserve.core.fleet import Capabilities, PlanView, Worker
from thunderserve.core.plan import Gpu, Group, Phase, Plan, Route, Stage
from thunderserve.runtime.backoff import Backoff
from thunderserve.runtime.plan_watch import PlanWatch
from thunderserve.runtime.rpc import serve_rpc, stop_server
from thunderserve.wire.fleet import worker_to_proto
from thunderserve.wire.plans import plan_to_proto

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


def worker(group_id: str, instance_id: str = "i0") -> Worker:
    return Worker(
        group_id=group_id,
        node_id=f"n-{group_id}",
        gpus=(Gpu(f"n-{group_id}/0", "CPU"),),
        instance_id=instance_id,
        address="127.0.0.1:1",
        kvlink_address="127.0.0.1:2",
        model="m",
        capabilities=Capabilities(
            (Phase.PREFILL,),
            flippable=True,
            tp=1,
            pp=1,
            kv_dtype="bfloat16",
            page_size_tokens=16,
            context_tokens=2048,
        ),
    )


def view(epoch: int, *workers: Worker) -> PlanView:
    groups = (
        Group("g0", Phase.PREFILL, 1, 1, (Stage(8, (Gpu("n-g0/0", "CPU"),)),)),
        Group("g1", Phase.DECODE, 1, 1, (Stage(8, (Gpu("n-g1/0", "CPU"),)),)),
    )
    plan = Plan(epoch, "test", 0, "m", groups, (Route("g0", "g1", 1.0),))
    return PlanView(plan, workers)


class ScriptedControl:
    """Sends what the test puts into `script`, and records what watchers know already."""

    def __init__(self) -> None:
        self.script: asyncio.Queue[PlanView] = asyncio.Queue()
        self.known_epochs: list[int] = []

    async def watch_plan(
        self, request: control_pb2.WatchPlanRequest, context: object
    ) -> AsyncIterator[control_pb2.WatchPlanResponse]:
        """The handler of `WatchPlan`; the service's other calls are not under test."""
        del context
        self.known_epochs.append(request.known_epoch)
        while True:
            plan, workers = await self.script.get()
            yield control_pb2.WatchPlanResponse(
                plan=plan_to_proto(plan), workers=[worker_to_proto(w) for w in workers]
            )

    def register(self, server: grpc.aio.Server) -> None:
        """Add the one call to a server."""
        handler = grpc.unary_stream_rpc_method_handler(
            self.watch_plan,
            request_deserializer=control_pb2.WatchPlanRequest.FromString,
            response_serializer=control_pb2.WatchPlanResponse.SerializeToString,
        )
        service = control_pb2.DESCRIPTOR.services_by_name["ControlService"].full_name
        generic = grpc.method_handlers_generic_handler(service, {"WatchPlan": handler})
        server.add_generic_rpc_handlers((generic,))


@asynccontextmanager
async def serving(control: ScriptedControl, address: str) -> AsyncIterator[None]:
    server = await serve_rpc(address, control.register)
    try:
        yield
    finally:
        await stop_server(server, grace_s=0)


def watch(*addresses: str) -> PlanWatch:
    return PlanWatch(addresses, backoff=Backoff(first_s=0.01, longest_s=0.05))


async def test_plan_watch_yields_newest_views_when_plans_are_published(unix_address: str) -> None:
    """Every view arrives whole, and `view` and `epoch` follow."""
    control = ScriptedControl()
    async with asyncio.timeout(5), serving(control, unix_address), watch(unix_address) as plans:
        assert plans.view is None
        views = plans.views()
        for epoch in (1, 2):
            control.script.put_nowait(view(epoch, worker("g0"), worker("g1")))
            assert await anext(views) == view(epoch, worker("g0"), worker("g1"))
            assert plans.epoch == epoch


async def test_plan_watch_refuses_a_plan_when_its_epoch_is_lower(unix_address: str) -> None:
    """A replica that lags behind cannot take the fleet back."""
    control, called = ScriptedControl(), []
    async with (
        asyncio.timeout(5),
        serving(control, unix_address),
        PlanWatch([unix_address], on_change=lambda view: called.append(view.plan.epoch)) as plans,
    ):
        for epoch in (5, 4, 6):
            control.script.put_nowait(view(epoch))
        async for plan, _ in plans.views():
            if plan.epoch == 6:
                break
    assert called == [5, 6]


async def test_plan_watch_keeps_plan_and_resumes_when_control_restarts(
    unix_address: str, other_unix_address: str
) -> None:
    """The last plan outlives control; the next replica is told what is known already."""
    control, other = ScriptedControl(), ScriptedControl()
    async with asyncio.timeout(10), watch(unix_address, other_unix_address) as plans:
        views = plans.views()
        async with serving(control, unix_address):
            control.script.put_nowait(view(3, worker("g0")))
            await anext(views)
        assert plans.epoch == 3
        async with serving(other, other_unix_address):
            other.script.put_nowait(view(4))
            assert (await anext(views)).plan.epoch == 4
    assert other.known_epochs == [3]
