"""A control plane without servers, and a worker client without a worker: for tests of flips."""

from __future__ import annotations

import asyncio
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from fleet_fakes import MODEL, EqualWeightsPlanner, make_worker, weights

from thunderserve.control.flip_run import FlipLimits
from thunderserve.control.flips import Flips
from thunderserve.control.journal import Journal
from thunderserve.control.leadership import Leadership
from thunderserve.control.observer import Observer
from thunderserve.control.publisher import Publisher
from thunderserve.control.reconciler import Rules
from thunderserve.control.records import Keys, flip_from_value
from thunderserve.control.registry import MemberSession, Registry
from thunderserve.control.steward import Steward
from thunderserve.core.fleet import Flip, FlipStep, Heartbeat, Router, Switched, WorkerStatus
from thunderserve.core.plan import Phase
from thunderserve.runtime.store.memory import MemoryStore
from thunderserve.runtime.store.mirror import mirror

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

PREFILL, DECODE = Phase.PREFILL, Phase.DECODE
LIMITS = FlipLimits(acknowledge_s=0.2, verify_s=0.2, poll_s=0.01, retry_s=0.01)
KEYS = Keys("test")


class FakeWorkerClient:
    """Stands for the worker of g2: no RPC, and a switch that does as it is told."""

    def __init__(self) -> None:
        self.phase = DECODE
        self.in_flight = 0
        self.on_switch: Callable[[Phase], Any] = lambda _: asyncio.sleep(0)
        self.lies = False

    async def status(self) -> WorkerStatus:
        """How it says it is."""
        return WorkerStatus("g2", "i0", self.phase, self.in_flight, 1, 1, switching=False)

    async def switch_phase(
        self, phase: Phase, *, drain_timeout_s: float, plan_epoch: int
    ) -> Switched:
        """Change the phase after `on_switch`, unless it lies."""
        del drain_timeout_s, plan_epoch
        await self.on_switch(phase)
        if not self.lies:
            self.phase = phase
        return Switched(await self.status(), drain_s=1.0, switch_s=2.0)

    async def close(self) -> None:
        """Nothing to free."""


@dataclass
class Desk:
    """A control plane without servers: workers g0 (prefill), g1 and g2 (decode), one router."""

    store: MemoryStore
    observer: Observer
    leadership: Leadership
    journal: Journal
    steward: Steward
    registry: Registry
    sessions: dict[str, MemberSession]
    client: FakeWorkerClient = field(default_factory=FakeWorkerClient)
    flips: Flips = field(init=False)

    def __post_init__(self) -> None:
        self.flips = Flips(
            self.store,
            KEYS,
            self.observer,
            self.steward,
            self.leadership,
            journal=self.journal,
            open_worker=lambda _: self.client,
            clock=lambda: 1000.0,
            new_id=lambda: "f",
            limits=LIMITS,
        )

    async def flip(self) -> Flip:
        """Flip g2 to prefill."""
        return await self.flips.flip("g2", PREFILL, drain_timeout_s=1)

    async def beat(self, group_id: str, phase: Phase) -> None:
        """A worker says its phase, and control knows it."""
        self.sessions[group_id].beat(Heartbeat(phase=phase))
        await self.wait(lambda: self.phase_of(group_id) is phase)

    def phase_of(self, group_id: str) -> Phase | None:
        """What control knows."""
        live = self.observer.inventory.worker(group_id)
        return live.heartbeat.phase if live else None

    def pairs(self) -> set[tuple[str, str]]:
        """Who is routed to now."""
        assert self.observer.standing is not None
        return set(weights(self.observer.standing.plan))

    async def wait(self, holds: Callable[[], bool]) -> None:
        """Wait for a condition on what control knows."""
        assert await self.observer.wait_until(holds, 5)

    async def wait_step(self, step: FlipStep) -> None:
        """Wait until the flip is recorded to be at a step."""
        async with asyncio.timeout(5), aclosing(mirror(self.store, KEYS.flip("f"))) as mappings:
            async for entries in mappings:
                if any(flip_from_value(entry.value).step is step for entry in entries.values()):
                    return

    async def recorded_steps(self, work: Any) -> list[FlipStep]:
        """The steps recorded in the store while something is done."""
        before = (await self.store.list("")).revision
        await work
        after = (await self.store.put("/end", b"")) - 1
        steps: list[FlipStep] = []
        async for batch in self.store.watch("", before):
            steps += [
                flip_from_value(change.entry.value).step
                for change in batch.changes
                if change.key.startswith(KEYS.flips) and change.entry
            ]
            if batch.revision > after:
                break
        return steps


@asynccontextmanager
async def running_desk() -> AsyncIterator[Desk]:
    store, planner = MemoryStore(), EqualWeightsPlanner()
    observer = Observer(store, KEYS)
    leadership = Leadership(store, KEYS.leader, "me", lease_ttl_s=5, on_change=observer.nudge)
    journal = Journal(store, KEYS, leadership, lambda: 1000.0)
    publisher = Publisher(store, KEYS, observer, journal, lambda: 1000.0)
    rules = Rules(MODEL, 3, planner.group_of, planner.routes)
    steward = Steward(observer, publisher, leadership, rules, settle_s=0)
    registry = Registry(store, KEYS, lease_ttl_s=5)
    members = {i: registry.open(make_worker(i)) for i in ("g0", "g1", "g2")}
    members["r0"] = registry.open(Router("r0", "i0", "a"))
    desk = Desk(store, observer, leadership, journal, steward, registry, members)
    loops = (observer.run(), leadership.run(), steward.run(), desk.flips.run())
    tasks = [asyncio.create_task(loop) for loop in loops]
    for group_id, phase in (("g0", PREFILL), ("g1", DECODE), ("g2", DECODE)):
        members[group_id].beat(Heartbeat(phase=phase))
    await desk.wait(lambda: observer.standing is not None)
    try:
        yield desk
    finally:
        for session in members.values():
            registry.close(session)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await store.close()
