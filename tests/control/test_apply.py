"""Plans that operators apply, over real gRPC."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from fleet_fakes import FakeWorker, fleet, followed, weights

from thunderserve.core.errors import ConflictError, InvalidArgumentError, PreconditionError
from thunderserve.core.plan import Phase, Plan, Route

if TYPE_CHECKING:
    from collections.abc import Callable

    from control_under_test import ControlUnderTest

    Sockets = Callable[[str], str]

PREFILL, DECODE = Phase.PREFILL, Phase.DECODE
THREE_TO_SEVEN = (Route("g0", "g1", 0.3), Route("g0", "g2", 0.7))


async def test_apply_publishes_routes_as_given(control: ControlUnderTest, sockets: Sockets) -> None:
    """The operator's weights reach the routers, and stay when nothing changes."""
    async with fleet(control.addresses, sockets, g0=PREFILL, g1=DECODE, g2=DECODE) as (_, router):
        plan = await control.client.plan()
        applied = await control.client.apply_plan(
            replace(plan, routes=THREE_TO_SEVEN, strategy="mine"), expected_epoch=plan.epoch
        )
        assert applied.epoch == plan.epoch + 1
        seen = await followed(router, lambda plan: plan.epoch == applied.epoch)
        assert weights(seen) == {("g0", "g1"): 0.3, ("g0", "g2"): 0.7}
        assert seen.strategy == "mine"


async def test_apply_is_refused_when_expected_epoch_is_stale(
    control: ControlUnderTest, sockets: Sockets
) -> None:
    """Who decided on an old plan must look again; nothing is published."""
    async with fleet(control.addresses, sockets, g0=PREFILL, g1=DECODE):
        plan = await control.client.plan()
        with pytest.raises(ConflictError, match="current epoch"):
            await control.client.apply_plan(plan, expected_epoch=plan.epoch + 5)
        assert (await control.client.plan()).epoch == plan.epoch


async def test_apply_publishes_nothing_when_it_only_validates(
    control: ControlUnderTest, sockets: Sockets
) -> None:
    """The answer is the plan as it would be."""
    async with fleet(control.addresses, sockets, g0=PREFILL, g1=DECODE, g2=DECODE):
        plan = await control.client.plan()
        wanted = replace(plan, routes=THREE_TO_SEVEN)
        answer = await control.client.apply_plan(wanted, validate_only=True)
        assert answer.routes == THREE_TO_SEVEN
        assert await control.client.plan() == plan


async def test_apply_returns_the_first_plan_when_a_request_is_repeated(
    control: ControlUnderTest, sockets: Sockets
) -> None:
    """A retry after a lost answer does not publish twice."""
    async with fleet(control.addresses, sockets, g0=PREFILL, g1=DECODE, g2=DECODE):
        wanted = replace(await control.client.plan(), routes=THREE_TO_SEVEN)
        first = await control.client.apply_plan(wanted, request_id="once")
        await control.client.drain("g1")
        assert await control.client.apply_plan(wanted, request_id="once") == first
        assert (await control.client.plan()).epoch == first.epoch + 1


@pytest.mark.parametrize("control", ["memory"], indirect=True)
async def test_apply_flips_groups_when_their_phases_differ(
    control: ControlUnderTest, sockets: Sockets
) -> None:
    """The phases come first, by flips; then the routes as given."""
    async with fleet(control.addresses, sockets, g0=PREFILL, g1=DECODE, g2=DECODE) as (workers, _):
        plan = (await control.client.plan()).with_phase("g2", PREFILL)
        routes = (Route("g0", "g1", 0.25), Route("g2", "g1", 0.75))
        applied = await control.client.apply_plan(replace(plan, routes=routes))
        assert workers["g2"].phase is PREFILL
        assert weights(applied) == {("g0", "g1"): 0.25, ("g2", "g1"): 0.75}
        assert len(await control.client.flips()) == 1


@pytest.mark.parametrize("control", ["memory"], indirect=True)
async def test_apply_publishes_nothing_when_a_flip_fails(
    control: ControlUnderTest, sockets: Sockets
) -> None:
    """The error says which group did not flip and why; the old plan serves on."""
    async with fleet(control.addresses, sockets, g0=PREFILL, g1=DECODE, g2=DECODE) as (workers, _):
        before = await control.client.plan()
        workers["g2"].switch_error = ConflictError("busy")
        plan = before.with_phase("g2", PREFILL)
        with pytest.raises(PreconditionError, match=r"g2 did not flip.*busy"):
            await control.client.apply_plan(replace(plan, routes=(Route("g2", "g1", 1.0),)))
        assert weights(await control.client.plan()) == weights(before)


def _other_gpus(plan: Plan) -> Plan:
    stages = plan.groups[1].stages
    swapped = (
        replace(plan.groups[0], stages=stages),
        replace(plan.groups[1], stages=plan.groups[0].stages),
    )
    return replace(plan, groups=swapped)


@pytest.mark.parametrize("control", ["memory"], indirect=True)
@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda plan: replace(plan, model="gpt-2"), "serves"),
        (lambda plan: replace(plan, groups=(), routes=()), "no groups"),
        (_other_gpus, "phases and routes alone"),
        (
            lambda plan: replace(
                plan, groups=(replace(plan.groups[0], id="x"), plan.groups[1]), routes=()
            ),
            "not attached",
        ),
    ],
)
async def test_apply_is_refused_when_the_plan_is_not_of_this_fleet(
    control: ControlUnderTest, sockets: Sockets, spoil: Callable[[Plan], Plan], says: str
) -> None:
    """Another model, other GPUs or unknown groups: the message says which."""
    async with fleet(control.addresses, sockets, g0=PREFILL, g1=DECODE):
        with pytest.raises(InvalidArgumentError, match=says):
            await control.client.apply_plan(spoil(await control.client.plan()))


@pytest.mark.parametrize("control", ["memory"], indirect=True)
async def test_applied_routes_come_back_when_a_lost_worker_returns(
    control: ControlUnderTest, sockets: Sockets
) -> None:
    """A loss cuts the operator's routes down; a return makes them what they were."""
    async with fleet(control.addresses, sockets, g0=PREFILL, g1=DECODE, g2=DECODE) as (
        workers,
        router,
    ):
        plan = await control.client.plan()
        await control.client.apply_plan(replace(plan, routes=THREE_TO_SEVEN))
        await workers["g2"].__aexit__(None, None, None)
        cut = await followed(router, lambda plan: len(plan.routes) == 1)
        assert weights(cut) == {("g0", "g1"): 1.0}
        assert "g2 is lost" in cut.reason
        async with FakeWorker("g2", DECODE, sockets("g2b"), control.addresses):
            whole = await followed(router, lambda plan: len(plan.routes) == 2)
            assert weights(whole) == {("g0", "g1"): 0.3, ("g0", "g2"): 0.7}
