"""One writer: campaigns, and fences that hold when a leader does not know that it lost."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest
from fleet_fakes import MODEL

from thunderserve.control.journal import Journal
from thunderserve.control.leadership import Leadership
from thunderserve.control.observer import Observer
from thunderserve.control.publisher import Publisher
from thunderserve.control.reconciler import Rules
from thunderserve.control.records import Keys
from thunderserve.control.standing import Intent, Standing
from thunderserve.control.steward import Steward
from thunderserve.core.errors import ConflictError, UnavailableError
from thunderserve.core.fleet import PlanView
from thunderserve.core.plan import Plan
from thunderserve.runtime.store.memory import MemoryStore

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

KEYS = Keys("test")


class Campaign:
    """A replica's leadership, running; `changed` is set at every change."""

    def __init__(self, store: MemoryStore, name: str) -> None:
        self.changed = asyncio.Event()
        self.leadership = Leadership(
            store, KEYS.leader, name, lease_ttl_s=0.3, on_change=self.changed.set
        )
        self.task = asyncio.create_task(self.leadership.run())

    async def wait(self, holds: Callable[[], bool]) -> None:
        """Wait for a condition on what it knows."""
        async with asyncio.timeout(5):
            while not holds():
                self.changed.clear()
                await self.changed.wait()

    async def stop(self) -> None:
        """Campaign no more."""
        self.task.cancel()
        await asyncio.wait([self.task])


@asynccontextmanager
async def campaign(store: MemoryStore, name: str) -> AsyncIterator[Campaign]:
    running = Campaign(store, name)
    try:
        yield running
    finally:
        await running.stop()


def _publisher(store: MemoryStore, observer: Observer, leadership: Leadership) -> Publisher:
    journal = Journal(store, KEYS, leadership, lambda: 0.0)
    return Publisher(store, KEYS, observer, journal, lambda: 0.0)


def proposed(epoch: int) -> Standing:
    return Standing(PlanView(Plan(epoch, "s", 0, MODEL, (), ()), ()), Intent())


async def test_leadership_goes_to_one_replica_when_two_campaign() -> None:
    """The other one refuses to write and says who leads."""
    store = MemoryStore()
    async with campaign(store, "a:1") as first:
        await first.wait(lambda: first.leadership.leads)
        async with campaign(store, "b:1") as second:
            with pytest.raises(UnavailableError, match="no replica leads now"):
                second.leadership.fence()
            await second.wait(lambda: second.leadership.leader == "a:1")
            with pytest.raises(UnavailableError, match="ask the leader at a:1"):
                second.leadership.fence()
    await store.close()


async def test_leadership_passes_on_when_the_leader_dies() -> None:
    """The lease ends, and the next campaign wins under a new fence."""
    store = MemoryStore()
    async with campaign(store, "a:1") as first, campaign(store, "b:1") as second:
        await first.wait(lambda: first.leadership.leads)
        old = first.leadership.fence()
        await first.stop()
        await second.wait(lambda: second.leadership.leads)
        assert second.leadership.fence().revision > old.revision
    await store.close()


async def test_leadership_passes_on_at_once_when_the_leader_resigns() -> None:
    """An orderly end does not wait for the lease."""
    store = MemoryStore()
    async with campaign(store, "a:1") as first:
        await first.wait(lambda: first.leadership.leads)
        await first.stop()
        await first.leadership.resign()
        assert await store.get(KEYS.leader) is None
    await store.close()


async def test_publish_is_refused_when_the_leader_was_replaced_unknowingly() -> None:
    """The store, not the replica's belief, decides; the replica steps down at once."""
    store = MemoryStore()
    async with campaign(store, "a:1") as first:
        await first.wait(lambda: first.leadership.leads)
        observer = Observer(store, KEYS)
        publisher = _publisher(store, observer, first.leadership)
        await publisher.publish(proposed(1))
        key = await store.get(KEYS.leader)
        assert key is not None
        await store.revoke_lease(key.lease_id)
        await store.put(KEYS.leader, b"b:1")
        assert first.leadership.leads
        with pytest.raises(UnavailableError, match="another control replica leads"):
            await publisher.publish(proposed(2))
        assert not first.leadership.leads
        assert observer.standing is not None
        assert observer.standing.plan.epoch == 1
    await store.close()


async def test_publish_is_refused_when_the_plan_was_replaced_meanwhile() -> None:
    """Two decisions on the same plan: the second must look again, and then knows the first."""
    store = MemoryStore()
    async with campaign(store, "a:1") as first:
        await first.wait(lambda: first.leadership.leads)
        mine, theirs = Observer(store, KEYS), Observer(store, KEYS)
        await _publisher(store, theirs, first.leadership).publish(proposed(1))
        publisher = _publisher(store, mine, first.leadership)
        with pytest.raises(ConflictError):
            await publisher.publish(proposed(1))
        assert mine.standing == theirs.standing
        assert (await publisher.publish(proposed(2))).plan.epoch == 2
    await store.close()


async def test_advance_acknowledges_nothing_when_what_it_knows_is_stale() -> None:
    """A change that seems made already writes nothing, so the store itself must say that it is."""
    store = MemoryStore()
    async with campaign(store, "a:1") as first:
        await first.wait(lambda: first.leadership.leads)
        mine, theirs = Observer(store, KEYS), Observer(store, KEYS)
        publisher = _publisher(store, theirs, first.leadership)
        await publisher.publish(proposed(1))
        await mine.refresh()
        rules = Rules(MODEL, 1, lambda *_: pytest.fail("no worker"), lambda *_: ())
        steward = Steward(
            mine,
            _publisher(store, mine, first.leadership),
            first.leadership,
            rules,
            settle_s=0,
        )
        assert (await steward.advance(reason="asked")).plan.epoch == 1
        await publisher.publish(proposed(2))
        with pytest.raises(ConflictError, match="published meanwhile"):
            await steward.advance(reason="asked")
        assert (await steward.advance(reason="asked")).plan.epoch == 2
    await store.close()
