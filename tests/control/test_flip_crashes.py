"""A flip is cut off at every step that it records, and a plan of several flips too.

The steps are those that the store saw in a run that nothing disturbed: a step that is added is
crashed at without anybody listing it here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from crash_desk import CrashDesk, moments_of
from crash_gate import Moment

from thunderserve.core.fleet import FlipStep
from thunderserve.core.plan import WEIGHT_TOLERANCE, Phase

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

PREFILL, DECODE = Phase.PREFILL, Phase.DECODE


def check(desk: CrashDesk) -> None:
    """What holds however a flip was cut off."""
    epochs = [plan.epoch for plan in desk.published]
    assert epochs == sorted(set(epochs)), "an epoch came twice, or fell"
    for plan in desk.published:
        total = sum(route.weight for route in plan.routes)
        assert not plan.routes or abs(total - 1) <= WEIGHT_TOLERANCE
        phases = {group.id: group.phase for group in plan.groups}
        for route in plan.routes:
            assert (phases[route.prefill], phases[route.decode]) == (PREFILL, DECODE)
        assert plan.routes, "nobody served"
    standing = desk.standing
    assert not standing.intent.flipping
    assert standing.intent.pursued is None
    routed = {end for route in standing.plan.routes for end in (route.prefill, route.decode)}
    assert routed == set(desk.alive), "a group stayed out of the routes"
    for group in standing.plan.groups:
        if group.id in desk.alive:
            assert group.phase is desk.workers[group.id].phase


async def at_every_moment(
    change: Callable[[CrashDesk], Awaitable[object]],
    crash: Callable[[CrashDesk], Awaitable[None]],
    then: Callable[[CrashDesk], None],
) -> int:
    """Crash at every write of a change, before it and after it; how many there were."""
    writes = await moments_of(change)
    for index in range(writes):
        for after in (False, True):
            async with CrashDesk.running() as desk:
                await desk.change_until(change, Moment(index, after=after), crash)
                await desk.wait_settled()
                check(desk)
                then(desk)
    return writes


async def flip(desk: CrashDesk) -> object:
    """One flip."""
    return await desk.control.flips.flip("g3", PREFILL, drain_timeout_s=1)


async def apply(desk: CrashDesk) -> object:
    """A plan with two flips, one each way."""
    return await desk.apply(g1=DECODE, g3=PREFILL)


async def test_flip_is_resumed_or_rolled_back_when_control_crashes_at_any_step() -> None:
    """The next leader ends the flip as the worker says; a flip has at least its six steps."""

    def ended(desk: CrashDesk) -> None:
        for each in desk.flips:
            done = desk.workers["g3"].phase is PREFILL
            assert each.step is (FlipStep.DONE if done else FlipStep.ROLLED_BACK)

    writes = await at_every_moment(flip, CrashDesk.replace_control, ended)
    assert writes >= 6


async def test_flip_goes_on_when_the_router_crashes_at_any_step() -> None:
    """A router that is gone is not waited for, and the flip succeeds."""

    def done(desk: CrashDesk) -> None:
        assert [each.step for each in desk.flips] == [FlipStep.DONE]

    await at_every_moment(flip, CrashDesk.lose_router, done)


async def test_flip_is_rolled_back_when_its_worker_crashes_at_any_step() -> None:
    """The group is lost and the others serve; one that had switched before has flipped."""

    def ended(desk: CrashDesk) -> None:
        assert all(each.ended for each in desk.flips)
        assert "g3" not in desk.alive

    await at_every_moment(flip, CrashDesk.lose_worker, ended)


async def test_plan_of_two_flips_is_finished_when_control_crashes_at_any_step() -> None:
    """What was acknowledged to be wanted survives the leader: the next one makes the other flip."""

    def finished(desk: CrashDesk) -> None:
        phases = {name: worker.phase for name, worker in desk.workers.items()}
        begun = any("applied by the test" in plan.reason for plan in desk.published)
        assert (phases["g1"], phases["g3"]) == ((DECODE, PREFILL) if begun else (PREFILL, DECODE))

    writes = await at_every_moment(apply, CrashDesk.replace_control, finished)
    assert writes >= 14


@pytest.mark.parametrize("floor", [0.5, 0.6])
async def test_plan_of_two_flips_keeps_the_floor_or_is_refused(floor: float) -> None:
    """Of two prefill and two decode groups one is away at a time: half of the routes' groups."""
    async with CrashDesk.running(capacity_floor_ratio=floor) as desk:
        before = len(desk.published)
        if floor > 0.5:
            with pytest.raises(Exception, match="capacity_floor_ratio is 60%"):
                await apply(desk)
            assert len(desk.published) == before
        else:
            await apply(desk)
            assert desk.workers["g1"].phase is DECODE
