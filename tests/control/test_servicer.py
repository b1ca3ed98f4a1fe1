"""Plans, flips and drains over real gRPC, with workers without engines, on both stores."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from fleet_fakes import fleet, followed, weights

from thunderserve.core.errors import ConflictError, NotFoundError, PreconditionError
from thunderserve.core.fleet import FlipStep, GroupState
from thunderserve.core.plan import Phase

if TYPE_CHECKING:
    from collections.abc import Callable

    from control_under_test import ControlUnderTest

    Sockets = Callable[[str], str]

PREFILL, DECODE = Phase.PREFILL, Phase.DECODE


async def test_control_publishes_first_plan_when_expected_workers_attached(
    control: ControlUnderTest, sockets: Sockets
) -> None:
    """Declared phases stay, the planner gives the weights, and everything is listed."""
    with pytest.raises(NotFoundError):
        await control.client.plan()
    async with fleet(control.addresses, sockets, g0=PREFILL, g1=DECODE) as (_, router):
        plan = await control.client.plan()
        assert router.watch.view is not None
        assert plan == router.watch.view.plan
        assert [worker.group_id for worker in router.watch.view.workers] == ["g0", "g1"]
        assert plan.epoch == 1
        assert weights(plan) == pytest.approx({("g0", "g1"): 1.0})
        groups = await control.client.groups()
        assert [(g.group.id, g.state) for g in groups] == [
            ("g0", GroupState.SERVING),
            ("g1", GroupState.SERVING),
        ]
        assert [node.id for node in await control.client.nodes()] == ["n-g0", "n-g1"]
        with pytest.raises(NotFoundError):
            await control.client.plan(epoch=7)


async def test_control_flips_a_group_when_asked(
    control: ControlUnderTest, sockets: Sockets
) -> None:
    """The router sees the group leave the routes and come back in its new phase."""
    async with fleet(control.addresses, sockets, g0=PREFILL, g1=DECODE, g2=DECODE) as (
        workers,
        router,
    ):
        before = router.watch.epoch
        flip = await control.client.flip("g2", PREFILL, drain_timeout_s=3, request_id="f-1")
        assert (flip.step, flip.failure) == (FlipStep.DONE, "")
        assert (flip.drain_s, flip.switch_s) == (0.25, 0.5)
        assert workers["g2"].switches[0].plan_epoch == before + 1
        without = await control.client.plan(epoch=before + 1)
        assert set(weights(without)) == {("g0", "g1")}
        plan = await followed(router, lambda plan: plan.epoch == before + 2)
        assert set(weights(plan)) == {("g0", "g1"), ("g2", "g1")}
        assert flip.plan_epoch == plan.epoch
        assert await control.client.flips() == (flip,)
        again = await control.client.flip("g2", PREFILL, request_id="f-1")
        assert again == flip
        assert len(workers["g2"].switches) == 1


async def test_control_refuses_a_flip_when_nobody_could_serve_after_it(
    control: ControlUnderTest, sockets: Sockets
) -> None:
    """The last prefill and the last decode group stay; the plan is not touched."""
    async with fleet(control.addresses, sockets, g0=PREFILL, g1=DECODE) as (workers, router):
        for group_id, phase in (("g0", DECODE), ("g1", PREFILL)):
            with pytest.raises(PreconditionError, match="last"):
                await control.client.flip(group_id, phase)
        assert router.watch.epoch == 1
        assert not any(worker.switches for worker in workers.values())


async def test_control_refuses_a_flip_when_another_is_under_way(
    control: ControlUnderTest, sockets: Sockets
) -> None:
    """One flip at a time; meanwhile the group says so; the first one is not disturbed."""
    async with fleet(control.addresses, sockets, g0=PREFILL, g1=DECODE, g2=DECODE) as (workers, _):
        entered, leave = asyncio.Event(), asyncio.Event()

        async def hold() -> None:
            entered.set()
            await leave.wait()

        workers["g2"].before_switch = hold
        first = asyncio.create_task(control.client.flip("g2", PREFILL))
        await entered.wait()
        with pytest.raises(PreconditionError, match="one flip at a time"):
            await control.client.flip("g1", PREFILL)
        states = {g.group.id: g.state for g in await control.client.groups()}
        assert states["g2"] is GroupState.FLIPPING
        leave.set()
        assert (await first).step is FlipStep.DONE


async def test_control_rolls_a_flip_back_when_the_worker_does_not_drain(
    control: ControlUnderTest, sockets: Sockets
) -> None:
    """The group gets its routes back in its old phase, and the reason is recorded."""
    async with fleet(control.addresses, sockets, g0=PREFILL, g1=DECODE, g2=DECODE) as (
        workers,
        router,
    ):
        before = await control.client.plan()
        workers["g2"].switch_error = ConflictError("not idle after 3 s: 2 requests in flight")
        flip = await control.client.flip("g2", PREFILL)
        assert flip.step is FlipStep.ROLLED_BACK
        assert "2 requests in flight" in flip.failure
        after = await followed(router, lambda plan: plan.epoch == before.epoch + 2)
        assert (after.groups, weights(after)) == (before.groups, weights(before))


async def test_control_drains_a_group_when_asked_and_puts_it_back(
    control: ControlUnderTest, sockets: Sockets
) -> None:
    """A drained group keeps its phase and gets no requests."""
    async with fleet(control.addresses, sockets, g0=PREFILL, g1=DECODE, g2=DECODE) as (_, router):
        assert (await control.client.drain("g2")).state is GroupState.DRAINED
        assert set(weights(await control.client.plan())) == {("g0", "g1")}
        epoch = (await control.client.plan()).epoch
        await control.client.drain("g2")
        assert (await control.client.plan()).epoch == epoch
        assert (await control.client.undrain("g2")).state is GroupState.SERVING
        plan = await followed(router, lambda plan: len(plan.routes) == 2)
        assert set(weights(plan)) == {("g0", "g1"), ("g0", "g2")}
        with pytest.raises(NotFoundError):
            await control.client.drain("nobody")


async def test_control_computes_a_plan_when_asked_and_publishes_nothing(
    control: ControlUnderTest, sockets: Sockets
) -> None:
    """The planner answers over the live groups; a kept phase is kept."""
    async with fleet(control.addresses, sockets, g0=PREFILL, g1=DECODE, g2=DECODE) as (_, router):
        plan = await control.client.compute_plan(
            rate_rps=1, prompt_tokens=256, output_tokens=64, keep_phases=True
        )
        assert [group.phase for group in plan.groups] == [PREFILL, DECODE, DECODE]
        assert sum(weights(plan).values()) == pytest.approx(1)
        assert plan.epoch == 0
        assert (await control.client.plan()).epoch == router.watch.epoch


async def test_control_lists_published_plans_newest_first(
    control: ControlUnderTest, sockets: Sockets
) -> None:
    """History is complete, and epochs rise by one."""
    async with fleet(control.addresses, sockets, g0=PREFILL, g1=DECODE):
        for _ in range(2):
            await control.client.drain("g1")
            await control.client.undrain("g1")
        plans = await control.client.plans()
        assert [plan.epoch for plan in plans] == [5, 4, 3, 2, 1]
        assert plans[0] == await control.client.plan()
        assert plans[-1] == await control.client.plan(epoch=1)
