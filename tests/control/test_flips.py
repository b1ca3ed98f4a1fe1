"""The steps of a flip, with a fake client of the worker and the store in memory."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from flip_desk import KEYS, Desk, running_desk

from thunderserve.control.records import flip_to_value
from thunderserve.core.errors import EngineFailedError, InvalidArgumentError, UnavailableError
from thunderserve.core.fleet import Flip, FlipStep, Heartbeat
from thunderserve.core.plan import Phase

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

PREFILL, DECODE = Phase.PREFILL, Phase.DECODE


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
