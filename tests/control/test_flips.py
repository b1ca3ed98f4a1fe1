"""The steps of a flip, with a fake client of the worker and the store in memory."""

from __future__ import annotations

import asyncio
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest
from fleet_fakes import MODEL, EqualWeightsPlanner, make_worker, weights

from thunderserve.control.flip_run import FlipLimits
from thunderserve.control.flips import Flips
from thunderserve.control.leadership import Leadership
from thunderserve.control.observer import Observer
from thunderserve.control.publisher import Publisher
from thunderserve.control.reconciler import Rules
from thunderserve.control.records import Keys, flip_from_value, flip_to_value
from thunderserve.control.registry import MemberSession, Registry
from thunderserve.control.steward import Steward
from thunderserve.core.errors import EngineFailedError, InvalidArgumentError, UnavailableError
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
    publisher = Publisher(store, KEYS, observer, leadership, lambda: 1000.0)
    rules = Rules(MODEL, 3, planner.group_of, planner.routes)
    steward = Steward(observer, publisher, leadership, rules, settle_s=0)
    registry = Registry(store, KEYS, lease_ttl_s=5)
    members = {i: registry.open(make_worker(i)) for i in ("g0", "g1", "g2")}
    members["r0"] = registry.open(Router("r0", "i0", "a"))
    desk = Desk(store, observer, leadership, steward, registry, members)
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


@pytest.fixture
async def desk() -> AsyncIterator[Desk]:
    async with running_desk() as desk:
        yield desk


async def test_flip_is_recorded_step_by_step_when_it_succeeds(desk: Desk) -> None:
    """Every step is in the store before it is taken, and the plan gets two new epochs."""
    desk.client.in_flight = 2
    draining = asyncio.Event()

    async def drain(phase: Phase) -> None:
        draining.set()
        assert desk.pairs() == {("g0", "g1")}
        desk.client.in_flight = 0
        await desk.wait_step(FlipStep.SWITCHING)
        await desk.beat("g2", phase)

    desk.client.on_switch = drain
    steps = await desk.recorded_steps(desk.flip())
    assert draining.is_set()
    assert list(dict.fromkeys(steps)) == [
        FlipStep.REROUTING,
        FlipStep.DRAINING,
        FlipStep.SWITCHING,
        FlipStep.VERIFYING,
        FlipStep.DONE,
    ]
    flip = await desk.flips.get("f")
    assert (flip.drain_s, flip.switch_s, flip.plan_epoch) == (1.0, 2.0, 3)
    assert desk.pairs() == {("g0", "g1"), ("g2", "g1")}


async def test_flip_waits_for_routers_when_they_have_not_acknowledged(desk: Desk) -> None:
    """The worker is not asked to switch while a router may still send it requests."""
    asked = asyncio.Event()

    async def note(phase: Phase) -> None:
        asked.set()
        await desk.beat("g2", phase)

    desk.client.on_switch = note
    desk.sessions["r0"].beat(Heartbeat(plan_epoch=1))
    await desk.wait(lambda: len(desk.observer.inventory.routers) == 1)
    flip = asyncio.create_task(desk.flip())
    await desk.wait(lambda: desk.observer.standing.plan.epoch == 2)  # type: ignore[union-attr]
    assert not asked.is_set()
    desk.sessions["r0"].beat(Heartbeat(plan_epoch=2))
    await asyncio.wait_for(asked.wait(), 0.15)
    assert (await flip).step is FlipStep.DONE


async def test_flip_goes_on_when_a_router_never_acknowledges(desk: Desk) -> None:
    """A router that hangs cannot hold the fleet; the worker refuses what it still sends."""
    desk.client.on_switch = lambda phase: desk.beat("g2", phase)
    desk.sessions["r0"].beat(Heartbeat(plan_epoch=1))
    await desk.wait(lambda: len(desk.observer.inventory.routers) == 1)
    assert (await desk.flip()).step is FlipStep.DONE


async def test_flip_is_rolled_back_when_draining_times_out(desk: Desk) -> None:
    """The worker says that it changed nothing; its routes come back."""

    async def refuse(phase: Phase) -> None:
        raise UnavailableError(f"not idle, still not in {phase}")

    desk.client.on_switch = refuse
    flip = await desk.flip()
    assert (flip.step, flip.failure) == (FlipStep.ROLLED_BACK, "not idle, still not in PREFILL")
    assert desk.pairs() == {("g0", "g1"), ("g0", "g2")}
    assert await desk.flips.get("f") == flip


async def test_flip_is_rolled_back_when_the_worker_dies_under_way(desk: Desk) -> None:
    """A call that will never be answered is given up as soon as the lease ends."""

    async def die(phase: Phase) -> None:
        del phase
        await desk.sessions["g2"].leave()
        await asyncio.Event().wait()

    desk.client.on_switch = die
    flip = await asyncio.wait_for(desk.flip(), 5)
    assert flip.step is FlipStep.ROLLED_BACK
    assert "was lost" in flip.failure
    assert desk.pairs() == {("g0", "g1")}


async def test_flip_is_rolled_back_when_the_engine_is_lost(desk: Desk) -> None:
    """Whatever the worker raises is the recorded reason."""

    async def fail(phase: Phase) -> None:
        raise EngineFailedError(f"no {phase} any more")

    desk.client.on_switch = fail
    assert (await desk.flip()).failure == "no PREFILL any more"


@pytest.mark.parametrize("lies", [True, False])
async def test_flip_is_rolled_back_when_the_new_phase_is_not_verified(
    desk: Desk, *, lies: bool
) -> None:
    """The worker's own word is asked for, and its heartbeat too."""
    desk.client.lies = lies
    flip = await desk.flip()
    assert flip.step is FlipStep.ROLLED_BACK
    assert ("says it is in phase DECODE" if lies else "no heartbeat") in flip.failure
    assert desk.pairs() == {("g0", "g1"), ("g0", "g2")}


async def test_flip_goes_on_when_its_caller_goes_away(desk: Desk) -> None:
    """A closed terminal does not leave a group half-way."""
    entered, leave = asyncio.Event(), asyncio.Event()

    async def hold(phase: Phase) -> None:
        entered.set()
        await leave.wait()
        await desk.beat("g2", phase)

    desk.client.on_switch = hold
    caller = asyncio.create_task(desk.flip())
    await entered.wait()
    caller.cancel()
    await asyncio.wait([caller])
    leave.set()
    await desk.wait(lambda: desk.pairs() == {("g0", "g1"), ("g2", "g1")})


async def test_flip_is_refused_when_its_drain_timeout_is_not_positive(desk: Desk) -> None:
    """A drain of no time would be no drain."""
    with pytest.raises(InvalidArgumentError):
        await desk.flips.flip("g2", PREFILL, drain_timeout_s=0)


async def test_flip_does_nothing_when_it_only_validates(desk: Desk) -> None:
    """The answer is the flip as it would begin."""
    flip = await desk.flips.flip("g2", PREFILL, drain_timeout_s=1, validate_only=True)
    assert (flip.from_phase, flip.to_phase) == (DECODE, PREFILL)
    assert await desk.flips.all() == ()


@pytest.mark.parametrize(
    ("phase", "step"), [(DECODE, FlipStep.ROLLED_BACK), (PREFILL, FlipStep.DONE)]
)
async def test_abandoned_flip_is_ended_when_a_new_leader_finds_it(
    desk: Desk, phase: Phase, step: FlipStep
) -> None:
    """How it ended is what the worker says; the group is routed to again."""
    await desk.steward.advance(lambda intent: intent.__class__(flipping="g2"))
    left = Flip("old", "g2", DECODE, PREFILL, FlipStep.SWITCHING, created_unix_s=1.0)
    await desk.store.put(KEYS.flip("old"), flip_to_value(left))
    desk.client.phase = phase
    await desk.beat("g2", phase)
    await desk.flips.end_abandoned()
    assert (await desk.flips.get("old")).step is step
    assert any("g2" in pair for pair in desk.pairs())
