"""A fake control plane behind real gRPC: it plans nothing, it says what the test says."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import TYPE_CHECKING

from google.protobuf.duration_pb2 import Duration

from thunderserve.api.control.v1 import control_pb2
from thunderserve.api.control.v1.control_pb2_grpc import (
    ControlServiceServicer,
    MembershipServiceServicer,
    add_ControlServiceServicer_to_server,
    add_MembershipServiceServicer_to_server,
)
from thunderserve.runtime.rpc import serve_rpc
from thunderserve.wire.fleet import heartbeat_from_proto, hello_from_proto, worker_to_proto
from thunderserve.wire.plans import plan_to_proto

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable

    import grpc

    from thunderserve.core.fleet import Heartbeat, Member, Worker
    from thunderserve.core.plan import Plan


class FakeControl(ControlServiceServicer, MembershipServiceServicer):
    """Streams the plans it is given; keeps who attached and their heartbeats."""

    def __init__(self) -> None:
        self.members: list[Member] = []
        self.heartbeats: list[Heartbeat] = []
        self._views: list[control_pb2.WatchPlanResponse] = []
        self._published = asyncio.Condition()
        self._server: grpc.aio.Server | None = None

    async def start(self, address: str) -> None:
        """Serve on this address."""
        self._server = await serve_rpc(
            address,
            lambda s: add_ControlServiceServicer_to_server(self, s),
            lambda s: add_MembershipServiceServicer_to_server(self, s),
        )

    async def stop(self) -> None:
        """Gone, with all its streams."""
        assert self._server is not None
        await self._server.stop(None)

    async def publish(self, plan: Plan, workers: Iterable[Worker]) -> None:
        """Send a plan to everyone who watches, now and later."""
        message = control_pb2.WatchPlanResponse(
            plan=plan_to_proto(plan), workers=[worker_to_proto(worker) for worker in workers]
        )
        async with self._published:
            self._views.append(message)
            self._published.notify_all()

    async def WatchPlan(
        self, _request: control_pb2.WatchPlanRequest, _context: object
    ) -> AsyncIterator[control_pb2.WatchPlanResponse]:
        sent = 0
        while True:
            async with self._published:
                await self._published.wait_for(lambda: len(self._views) > sent)  # noqa: B023 - called here
            while sent < len(self._views):
                yield self._views[sent]
                sent += 1

    async def Attach(
        self, requests: AsyncIterator[control_pb2.AttachRequest], _context: object
    ) -> AsyncIterator[control_pb2.AttachResponse]:
        async for request in requests:
            if request.HasField("hello"):
                self.members.append(hello_from_proto(request.hello))
            else:
                self.heartbeats.append(heartbeat_from_proto(request.heartbeat))
            ttl, interval = Duration(), Duration()
            ttl.FromTimedelta(timedelta(seconds=3))
            interval.FromTimedelta(timedelta(seconds=0.5))
            yield control_pb2.AttachResponse(lease_ttl=ttl, heartbeat_interval=interval)
