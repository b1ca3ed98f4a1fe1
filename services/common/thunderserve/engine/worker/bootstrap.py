"""The life of a worker process, from its engine's start to the last child's end."""

from __future__ import annotations

import contextlib
import logging
import uuid
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from thunderserve.api.worker.v1 import worker_pb2_grpc
from thunderserve.core.fleet import Worker
from thunderserve.engine.host import EngineHost
from thunderserve.engine.worker.config import EngineKind, WorkerConfig, parse_gpus
from thunderserve.engine.worker.emulated_engine import emulated_engine
from thunderserve.engine.worker.phases import discover_phases
from thunderserve.engine.worker.servicer import WorkerServicer
from thunderserve.engine.worker.sglang_engine import sglang_engine
from thunderserve.engine.worker.waiting import unless_set
from thunderserve.runtime.membership import Membership
from thunderserve.runtime.plan_watch import PlanWatch
from thunderserve.runtime.rpc import serve_rpc, stop_server

if TYPE_CHECKING:
    import asyncio
    from collections.abc import AsyncIterator
    from contextlib import AbstractAsyncContextManager

    import grpc

    from thunderserve.engine.emulated import KvPort
    from thunderserve.engine.engine import Engine, KvLink

__all__ = ["MakeEngine", "Sidecar", "make_engine", "serve_worker"]

_log = logging.getLogger(__name__)

MakeEngine = Callable[["WorkerConfig", "KvPort | None"], "Engine"]


class Sidecar(Protocol):
    """How a worker reaches the kvlink sidecar beside it."""

    def link(self, local_address: str) -> AbstractAsyncContextManager[KvLink]:
        """Announce transfers and hear what they took."""

    def port(self, engine_socket: str) -> KvPort:
        """Send and receive KV bytes; the SGLang engine does so through its plugin instead."""


def make_engine(config: WorkerConfig, port: KvPort | None) -> Engine:
    """The engine that a configuration asks for; SGLang finds its sidecar itself."""
    if config.engine is EngineKind.SGLANG:
        return sglang_engine(config)
    return emulated_engine(config, port)


async def serve_worker(
    config: WorkerConfig,
    stopping: asyncio.Event,
    sidecar: Sidecar,
    make_engine: MakeEngine = make_engine,
) -> None:
    """Serve until `stopping` is set or the engine is lost.

    The gRPC server opens, and the worker attaches to its fleet, when the engine is ready. At the
    end it leaves the fleet first, so that routers send nothing more, then drains.

    Args:
        config: The worker's.
        stopping: Ends it.
        sidecar: How it reaches the kvlink sidecar beside it.
        make_engine: Makes the engine, not started, from the configuration and the sidecar's port.

    Raises:
        EngineFailedError: The engine did not come up, or was lost.
        UnavailableError: The address cannot be bound.
    """
    instance_id = uuid.uuid4().hex
    async with contextlib.AsyncExitStack() as stack:
        link = None
        if config.kvlink_local_address:
            link = await stack.enter_async_context(sidecar.link(config.kvlink_local_address))
        socket = config.kvlink_engine_socket
        engine = make_engine(config, sidecar.port(socket) if socket else None)
        host = EngineHost(engine, link)
        stack.push_async_callback(host.stop)
        _log.info("%s starts its engine in phase %s", config.group_id, config.phase)
        if await unless_set(stopping, host.start(config.phase)) is None:
            return
        server = await _serve(config, host, instance_id)
        # A lost engine answers nobody: whoever waits is told at once.
        stack.push_async_callback(stop_server, server, 0)
        async with _in_fleet(config, host, instance_id):
            _log.info("%s serves %s at %s", config.group_id, host.phase, config.address)
            if lost := await unless_set(stopping, host.wait_failed()):
                raise lost[0]
        await stop_server(server, config.drain_timeout_s)


async def _serve(config: WorkerConfig, host: EngineHost, instance_id: str) -> grpc.aio.Server:
    servicer = WorkerServicer(
        host,
        group_id=config.group_id,
        instance_id=instance_id,
        drain_timeout_s=config.drain_timeout_s,
    )

    def register(server: grpc.aio.Server) -> None:
        worker_pb2_grpc.add_WorkerServiceServicer_to_server(servicer, server)
        for phase in discover_phases():
            phase.register(server, host)

    return await serve_rpc(config.address, register)


@contextlib.asynccontextmanager
async def _in_fleet(
    config: WorkerConfig, host: EngineHost, instance_id: str
) -> AsyncIterator[None]:
    """Attached to control and following its plan; alone where no control is configured."""
    if not config.control_addresses:
        yield
        return
    addresses = config.control_addresses
    member = _member(config, host, instance_id)
    watch = PlanWatch(addresses, on_change=lambda view: host.observe_epoch(view.plan.epoch))
    async with (
        watch,
        Membership(addresses, member, lambda: host.heartbeat, on_leave=watch.move_on) as membership,
    ):
        host.on_change(membership.notify)
        yield


def _member(config: WorkerConfig, host: EngineHost, instance_id: str) -> Worker:
    return Worker(
        group_id=config.group_id,
        node_id=config.node_id,
        gpus=parse_gpus(config.gpus),
        instance_id=instance_id,
        address=config.advertised_address or config.address,
        kvlink_address=config.kvlink_advertised_address,
        model=config.model_name,
        capabilities=host.engine.capabilities,
    )
