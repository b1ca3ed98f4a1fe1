"""Constructs a router and serves until it is told to stop."""

from __future__ import annotations

import contextlib
import logging
import secrets
import time
import uuid
from typing import TYPE_CHECKING

from thunderserve.api.router.v1.router_pb2_grpc import add_RouterServiceServicer_to_server
from thunderserve.core.errors import ConflictError
from thunderserve.core.fleet import Heartbeat, Router
from thunderserve.router.admission import Admission
from thunderserve.router.dispatch import Dispatcher
from thunderserve.router.frontend import Frontend
from thunderserve.router.http import build_app
from thunderserve.router.http_server import serve_http
from thunderserve.router.routing import RouteTable
from thunderserve.router.servicer import RouterServicer
from thunderserve.router.suspicion import Suspicion
from thunderserve.router.tokenizer import load_tokenizer
from thunderserve.router.workers import WorkerClients
from thunderserve.router.workload_window import MemoryWindow, RedisWindow
from thunderserve.runtime.membership import Membership
from thunderserve.runtime.plan_watch import PlanWatch
from thunderserve.runtime.rpc import serve_rpc, stop_server

if TYPE_CHECKING:
    import asyncio
    from collections.abc import AsyncIterator

    from thunderserve.router.config import RouterConfig
    from thunderserve.router.workload_window import WorkloadWindow
    from thunderserve.runtime.plan_watch import PlanView

__all__ = ["new_room", "serve"]

_log = logging.getLogger(__name__)


async def serve(
    config: RouterConfig, stopping: asyncio.Event, window: WorkloadWindow | None = None
) -> None:
    """Run a router until `stopping` is set.

    It starts without a plan, and then answers 503 until a live pair exists.

    Args:
        config: Settings.
        stopping: Ends it.
        window: Gets every finished request; None makes what the settings say.
    """
    table = RouteTable()
    clients = WorkerClients(config.drain_s)
    async with contextlib.AsyncExitStack() as stack:
        stack.push_async_callback(clients.close)
        window = await stack.enter_async_context(window or _window(config))
        frontend = _frontend(config, table, clients, window)
        servicer = RouterServicer(frontend)
        app = build_app(frontend, max_body_bytes=config.max_body_bytes, unix_clock=time.time)
        http_address = await stack.enter_async_context(
            serve_http(app, config.http_address, config.drain_s)
        )
        server = await serve_rpc(
            config.address, lambda s: add_RouterServiceServicer_to_server(servicer, s)
        )
        stack.push_async_callback(stop_server, server, config.drain_s)
        await stack.enter_async_context(_follow(config, frontend, clients))
        _log.info("router %s: gRPC %s, HTTP %s", config.router_id, config.address, http_address)
        await stopping.wait()


def new_room() -> int:
    """A fresh transfer id in [1, 2**63)."""
    return secrets.randbelow(2**63 - 1) + 1


def _window(config: RouterConfig) -> WorkloadWindow:
    return RedisWindow(config.redis_url, config.fleet) if config.redis_url else MemoryWindow()


def _frontend(
    config: RouterConfig, table: RouteTable, clients: WorkerClients, window: WorkloadWindow
) -> Frontend:
    dispatcher = Dispatcher(
        table=table,
        suspicion=Suspicion(config.suspect_s),
        legs_of=clients.legs_of,
        new_room=new_room,
        clock=time.monotonic,
        max_retries=config.max_retries,
    )
    return Frontend(
        model_name=config.model_name,
        tokenizer=load_tokenizer(config.model_path),
        admission=Admission(config.max_in_flight),
        table=table,
        dispatcher=dispatcher,
        window=window,
        clock=time.monotonic,
        unix_clock=time.time,
        request_timeout_s=config.request_timeout_s,
    )


@contextlib.asynccontextmanager
async def _follow(
    config: RouterConfig, frontend: Frontend, clients: WorkerClients
) -> AsyncIterator[None]:
    """Be a member of the fleet and follow its plan while the block runs."""
    member = Router(config.router_id, uuid.uuid4().hex, config.advertised_address or config.address)

    def heartbeat() -> Heartbeat:
        return Heartbeat(plan_epoch=frontend.table.epoch, in_flight=frontend.admission.in_flight)

    def follow(view: PlanView) -> None:
        try:
            frontend.table.update(view.plan, view.workers)
        except ConflictError as error:
            _log.warning("refused: %s", error)
            return
        clients.keep(view.workers)
        # Control waits for this before it lets a group change its phase.
        membership.notify()

    watch = PlanWatch(config.control_addresses, on_change=follow)
    membership = Membership(config.control_addresses, member, heartbeat, on_leave=watch.move_on)
    async with membership, watch:
        yield
