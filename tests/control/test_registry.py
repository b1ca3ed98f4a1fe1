"""Members whose streams break: a little time to come back, then their leases end."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from fleet_fakes import make_worker

from thunderserve.control import registry as module
from thunderserve.control.records import Keys
from thunderserve.control.registry import Registry
from thunderserve.core.fleet import Heartbeat
from thunderserve.core.plan import Phase
from thunderserve.runtime.store.memory import MemoryStore

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from thunderserve.control.registry import MemberSession

KEYS = Keys("test")
BEAT = Heartbeat(phase=Phase.DECODE)
LEASE_S = 3600.0  # nothing here ends because a lease does
WORKER = make_worker("g1")


@pytest.fixture
async def store(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[MemoryStore]:
    monkeypatch.setattr(module, "RETURN_S", 0.05)
    store = MemoryStore()
    yield store
    await store.close()


@pytest.fixture
async def registry(store: MemoryStore) -> AsyncIterator[Registry]:
    registry = Registry(store, KEYS, lease_ttl_s=LEASE_S)
    running = asyncio.create_task(registry.run())
    yield registry
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def recorded(registry: Registry, store: MemoryStore) -> MemberSession:
    """A session whose member is in the store."""
    session = registry.open(WORKER)
    before = await store.get(session.key)
    session.beat(BEAT)
    while await store.get(session.key) == before:  # noqa: ASYNC110 - written by a task
        await asyncio.sleep(0.001)
    return session


async def test_member_is_gone_when_its_stream_breaks_and_it_does_not_return(
    registry: Registry, store: MemoryStore
) -> None:
    session = await recorded(registry, store)
    registry.lose(session)
    async with asyncio.timeout(5):
        while await store.get(session.key):  # noqa: ASYNC110 - ended by a task
            await asyncio.sleep(0.001)


async def test_member_stays_when_it_returns_to_this_replica(
    registry: Registry, store: MemoryStore
) -> None:
    registry.lose(await recorded(registry, store))
    session = await recorded(registry, store)
    await asyncio.sleep(2 * module.RETURN_S)
    assert await store.get(session.key)
    session.close()


async def test_member_stays_when_it_returns_to_another_replica(
    registry: Registry, store: MemoryStore
) -> None:
    """Its record is under the other one's lease by then."""
    registry.lose(await recorded(registry, store))
    session = await recorded(Registry(store, KEYS, lease_ttl_s=LEASE_S), store)
    await asyncio.sleep(2 * module.RETURN_S)
    assert await store.get(session.key)
    session.close()
