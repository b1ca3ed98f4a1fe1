"""Zombies: replicas and members that froze, and stores that were set back, change nothing."""

from __future__ import annotations

import asyncio
import shutil
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from control_under_test import running
from fleet_fakes import fleet, followed, make_worker

from thunderserve.control.config import ControlConfig, StoreKind
from thunderserve.control.records import Keys, member_from_value
from thunderserve.control.registry import MemberSession, Registry
from thunderserve.core.errors import ConflictError, UnavailableError
from thunderserve.core.fleet import Heartbeat, Worker
from thunderserve.core.plan import Phase
from thunderserve.runtime.store.memory import MemoryStore

if TYPE_CHECKING:
    from collections.abc import Callable

    from etcd_server import EtcdServer

PREFILL, DECODE = Phase.PREFILL, Phase.DECODE
KEYS = Keys("f")
G1 = make_worker("g1")
TTL_S = 3.0


class Clock:
    """Time that passes when it is told to."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


async def recorded(store: MemoryStore, epoch: int) -> tuple[Worker, Heartbeat]:
    """The record of g1, once it says that epoch."""
    async with asyncio.timeout(5):
        while True:
            entry = await store.get(KEYS.member(G1))
            if entry is not None:
                worker, heartbeat = member_from_value(entry.value)
                if heartbeat.plan_epoch == epoch:
                    assert isinstance(worker, Worker)
                    return worker, heartbeat
            await asyncio.sleep(0)


async def refused(session: MemberSession, epoch: int) -> Exception:
    """What a session's heartbeats come to."""
    async with asyncio.timeout(5):
        while True:
            try:
                session.beat(Heartbeat(plan_epoch=epoch))
            except (ConflictError, UnavailableError) as error:
                return error
            await asyncio.sleep(0)


async def test_session_is_over_when_its_lease_ended_and_a_fresh_one_is_admitted() -> None:
    """A member that was lost is not slipped back in: it must say hello, and is checked again."""
    clock = Clock()
    store = MemoryStore(clock)
    registry = Registry(store, KEYS, lease_ttl_s=TTL_S)
    zombie = registry.open(G1)
    zombie.beat(Heartbeat(plan_epoch=4))
    await recorded(store, 4)
    clock.now_s += TTL_S
    assert "attach anew" in str(await refused(zombie, 5))
    assert await store.get(KEYS.member(G1)) is None
    registry.close(zombie)
    again = registry.open(G1)
    again.beat(Heartbeat(plan_epoch=6))
    await recorded(store, 6)
    registry.close(again)
    await store.close()


async def test_session_writes_nothing_when_the_member_has_attached_elsewhere_since() -> None:
    """A replica that froze with the old stream wakes up and must not put the old words back."""
    store = MemoryStore()
    here, elsewhere = (Registry(store, KEYS, lease_ttl_s=TTL_S) for _ in range(2))
    stale = here.open(G1)
    stale.beat(Heartbeat(plan_epoch=1))
    await recorded(store, 1)
    fresh = elsewhere.open(G1)
    fresh.beat(Heartbeat(plan_epoch=2))
    await recorded(store, 2)
    assert isinstance(await refused(stale, 3), UnavailableError)
    await stale.leave()
    assert (await recorded(store, 2))[1].plan_epoch == 2
    here.close(stale)
    elsewhere.close(fresh)
    await store.close()


async def test_name_goes_to_another_process_when_the_first_ones_lease_has_ended() -> None:
    """Until then the second is refused, whichever replica it asks."""
    clock = Clock()
    store = MemoryStore(clock)
    here, elsewhere = (Registry(store, KEYS, lease_ttl_s=TTL_S) for _ in range(2))
    first = here.open(G1)
    first.beat(Heartbeat(plan_epoch=1))
    await recorded(store, 1)
    twin = replace(G1, instance_id="i9")
    second = elsewhere.open(twin)
    error = await refused(second, 2)
    assert isinstance(error, ConflictError)
    assert G1.address in str(error)
    here.close(first)
    clock.now_s += TTL_S
    third = elsewhere.open(twin)
    third.beat(Heartbeat(plan_epoch=3))
    assert (await recorded(store, 3))[0].instance_id == "i9"
    elsewhere.close(third)
    await store.close()


@pytest.mark.etcd
@pytest.mark.outages  # three starts of etcd, and a wait for leases: too slow on a busy machine
async def test_epochs_rise_when_etcd_is_restored_from_an_old_snapshot(
    own_etcd: EtcdServer, sockets: Callable[[str], str]
) -> None:
    """What was published stays, what was wanted stays, and the leader publishes it above."""
    config = ControlConfig(
        address=sockets("control"),
        model_name="thunder-demo-7m",
        store=StoreKind.ETCD,
        etcd_endpoints=(own_etcd.endpoint,),
        heartbeat_interval_s=0.05,
        expected_workers=3,
    )
    async with (
        running(config) as control,
        fleet(control.addresses, sockets, g0=PREFILL, g1=DECODE, g2=DECODE) as (_, router),
    ):
        own_etcd.stop()
        shutil.copytree(own_etcd.data, own_etcd.folder / "snapshot")
        own_etcd.start()
        while True:
            try:
                await control.client.drain("g2")
                break
            except UnavailableError:
                await asyncio.sleep(0.05)
        before = await control.client.plan()
        own_etcd.stop()
        shutil.rmtree(own_etcd.data)
        shutil.copytree(own_etcd.folder / "snapshot", own_etcd.data)
        own_etcd.start()
        assert (await control.client.plan()).epoch >= before.epoch
        await followed(router, lambda p: p.epoch > before.epoch and len(p.routes) == 1)
        assert any("the store had lost plan" in p.reason for p in await control.client.plans())
        assert router.epochs == sorted(set(router.epochs))
