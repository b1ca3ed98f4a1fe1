"""Constructs a control replica and serves until it is told to stop."""

from __future__ import annotations

import contextlib
import logging
import time
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING

from thunderserve.api.control.v1.control_pb2_grpc import (
    add_ControlServiceServicer_to_server,
    add_MembershipServiceServicer_to_server,
)
from thunderserve.control.changes import FlipRules
from thunderserve.control.dumps import Dumps
from thunderserve.control.flips import Flips
from thunderserve.control.forwarding import Forwarder
from thunderserve.control.journal import Journal
from thunderserve.control.leadership import Leadership
from thunderserve.control.membership_servicer import MembershipServicer
from thunderserve.control.monitor.monitor import Monitor, MonitorSettings
from thunderserve.control.monitor.policy import Limits
from thunderserve.control.observer import Observer
from thunderserve.control.operations import Operations
from thunderserve.control.publisher import Publisher
from thunderserve.control.reconciler import Rules
from thunderserve.control.records import Keys
from thunderserve.control.registry import Registry
from thunderserve.control.running import raise_failed, running, wait_stopped
from thunderserve.control.served import planned_workload, planner_of
from thunderserve.control.servicer import ControlServicer
from thunderserve.control.steward import Steward
from thunderserve.control.stores import open_store
from thunderserve.runtime.finished_requests import MemoryRequests, RedisFeed
from thunderserve.runtime.rpc import serve_rpc, stop_server
from thunderserve.runtime.worker_control import WorkerControl

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Coroutine
    from typing import Any

    import grpc

    from thunderserve.control.config import ControlConfig
    from thunderserve.control.planning import Planner
    from thunderserve.runtime.finished_requests import RequestFeed
    from thunderserve.runtime.store.base import Store

__all__ = ["Replica", "serve"]

_log = logging.getLogger(__name__)

# Members come back within their longest back-off; a lease more is for slow ones.
SETTLE_LEASES = 2.0
STOP_GRACE_S = 0.2


async def serve(
    config: ControlConfig,
    stopping: asyncio.Event,
    store: Store | None = None,
    feed: RequestFeed | None = None,
) -> None:
    """Run a replica of the control plane until `stopping` is set.

    Args:
        config: The replica's.
        stopping: Ends it.
        store: One that outlives the replica; None opens the configured one.
        feed: Finished requests, of routers in the same process; None reads Redis if it is set.

    Raises:
        ConfigError: The model or the workload is unknown.
        UnavailableError: The store does not answer, or the address is taken.
    """
    planner = planner_of(config)
    async with contextlib.AsyncExitStack() as stack:
        if store is None:
            store = open_store(config)
            stack.push_async_callback(store.close)
        await store.get(Keys(config.fleet).leader)
        if feed is None and config.redis_url:
            feed = redis = RedisFeed(config.redis_url, config.fleet)
            stack.push_async_callback(redis.close)
        replica = Replica.build(config, store, planner, feed or MemoryRequests())
        loops = running(replica.loops(), replica.observer, replica.leadership)
        tasks = await stack.enter_async_context(loops)
        raise_failed(tasks)
        server = await serve_rpc(config.address, replica.register)
        stack.push_async_callback(stop_server, server, STOP_GRACE_S)
        _log.info("control serves fleet %s on %s", config.fleet, config.address)
        await wait_stopped(stopping, tasks)


@dataclass(frozen=True, slots=True)
class Replica:
    """The collaborators that run by themselves, and the two services."""

    observer: Observer
    leadership: Leadership
    steward: Steward
    flips: Flips
    operations: Operations
    monitor: Monitor
    registry: Registry
    control: ControlServicer
    membership: MembershipServicer

    @classmethod
    def build(
        cls, config: ControlConfig, store: Store, planner: Planner, feed: RequestFeed
    ) -> Replica:
        """Wire one replica; nothing runs yet."""
        keys, name = Keys(config.fleet), config.advertised_address or config.address
        observer = Observer(store, keys)
        nudge, ttl_s = observer.nudge, config.leader_ttl_s
        leadership = Leadership(store, keys.leader, name, lease_ttl_s=ttl_s, on_change=nudge)
        journal = Journal(store, keys, leadership, time.time)
        publisher = Publisher(store, keys, observer, journal, time.time)
        steward = _steward(config, planner, observer, publisher, leadership)
        flip_rules = FlipRules(config.capacity_floor_ratio, planner.served_rps, planner.restart_s)
        flips = _flips(
            store, keys, observer, steward, leadership, journal=journal, rules=flip_rules
        )
        monitor = _monitor(config, planner, feed, observer, leadership, steward, flips)
        registry = Registry(store, keys, lease_ttl_s=config.lease_ttl_s)
        operations = Operations(
            config.model_name,
            observer=observer,
            publisher=publisher,
            steward=steward,
            flips=flips,
            planner=planner,
            leadership=leadership,
            registry=registry,
            rules=flip_rules,
            settle_s=SETTLE_LEASES * config.lease_ttl_s,
        )
        membership = _membership(config, planner, registry, observer)
        dumps = Dumps(
            config.model_name,
            store,
            keys,
            observer=observer,
            steward=steward,
            flips=flips,
            leadership=leadership,
            journal=journal,
        )
        control = ControlServicer(
            observer=observer,
            publisher=publisher,
            flips=flips,
            operations=operations,
            journal=journal,
            dumps=dumps,
            forwarder=Forwarder(leadership, observer, name),
        )
        return cls(
            observer,
            leadership,
            steward,
            flips,
            operations,
            monitor,
            registry,
            control,
            membership,
        )

    def register(self, server: grpc.aio.Server) -> None:
        """Add both services to a server."""
        add_ControlServiceServicer_to_server(self.control, server)
        add_MembershipServiceServicer_to_server(self.membership, server)

    def loops(self) -> tuple[Coroutine[Any, Any, None], ...]:
        """What runs by itself, for ever."""
        return (
            self.observer.run(),
            self.leadership.run(),
            self.steward.run(),
            self.flips.run(),
            self.operations.run(),
            self.registry.run(),
            self.monitor.run(),
        )


def _membership(
    config: ControlConfig, planner: Planner, registry: Registry, observer: Observer
) -> MembershipServicer:
    return MembershipServicer(
        registry,
        observer,
        model=config.model_name,
        group_of=planner.group_of,
        lease_ttl_s=config.lease_ttl_s,
        heartbeat_interval_s=config.heartbeat_interval_s,
    )


def _steward(
    config: ControlConfig,
    planner: Planner,
    observer: Observer,
    publisher: Publisher,
    leadership: Leadership,
) -> Steward:
    return Steward(
        observer,
        publisher,
        leadership,
        Rules(config.model_name, config.expected_workers, planner.group_of, planner.routes),
        settle_s=SETTLE_LEASES * config.lease_ttl_s,
    )


def _monitor(  # noqa: PLR0917 - all that it watches and moves
    config: ControlConfig,
    planner: Planner,
    feed: RequestFeed,
    observer: Observer,
    leadership: Leadership,
    steward: Steward,
    flips: Flips,
) -> Monitor:
    return Monitor(
        feed,
        planned_workload(config),
        observer=observer,
        leadership=leadership,
        steward=steward,
        flips=flips,
        weigh=planner.weigh,
        settings=_monitor_settings(config),
        clock=time.monotonic,
        unix_clock=time.time,
    )


def _monitor_settings(config: ControlConfig) -> MonitorSettings:
    return MonitorSettings(
        allowed=config.rescheduling,
        window_s=config.window_s,
        limits=Limits(
            cool_down_s=config.cool_down_s,
            flips_per_hour=config.flips_per_hour,
            least_gain_ratio=config.least_gain_ratio,
        ),
    )


def _flips(
    store: Store,
    keys: Keys,
    observer: Observer,
    steward: Steward,
    leadership: Leadership,
    *,
    journal: Journal,
    rules: FlipRules,
) -> Flips:
    return Flips(
        store,
        keys,
        observer,
        steward,
        leadership,
        journal=journal,
        open_worker=WorkerControl,
        clock=time.time,
        new_id=lambda: uuid.uuid4().hex[:12],
        rules=rules,
    )
