"""The service over real gRPC, with workers that have no engines, on both stores."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
from fleet_fakes import FakeRouter, FakeWorker

from thunderserve.core.errors import (
    NotFoundError,
)
from thunderserve.core.fleet import FlipStep, GroupState
from thunderserve.core.plan import Phase, Plan

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from control_under_test import ControlUnderTest

PREFILL, DECODE = Phase.PREFILL, Phase.DECODE


@asynccontextmanager
async def fleet(
    control: ControlUnderTest, sockets: Callable[[str], str], **phases: Phase
) -> AsyncIterator[Any]:
    """Workers of these phases and one router, once the router follows a plan over all of them."""
    workers = {
        group: FakeWorker(group, phase, sockets(group), control.addresses)
        for group, phase in phases.items()
    }
    async with asyncio.timeout(30), FakeRouter("r0", control.addresses) as router:
        for worker in workers.values():
            await worker.__aenter__()
        try:
            await followed(router, lambda plan: {g.id for g in plan.groups} == set(phases))
            yield workers, router
        finally:
            for worker in workers.values():
                await worker.__aexit__(None, None, None)


async def followed(router: FakeRouter, holds: Callable[[Plan], bool]) -> Plan:
    """The first plan from now on for which something holds."""
    async for plan, _ in router.watch.views():
        if holds(plan):
            return plan
    raise AssertionError


def weights(plan: Plan) -> dict[tuple[str, str], float]:
    return {(route.prefill, route.decode): route.weight for route in plan.routes}


async def test_control_publishes_first_plan_when_expected_workers_attached(
    control: ControlUnderTest, sockets: Callable[[str], str]
) -> None:
    """Declared phases stay, the planner gives the weights, and everything is listed."""
    with pytest.raises(NotFoundError):
        await control.client.plan()
    async with fleet(control, sockets, g0=PREFILL, g1=DECODE) as (_, router):
        plan = await control.client.plan()
        assert plan == router.watch.view.plan
        assert plan.epoch == 1
        assert weights(plan) == pytest.approx({("g0", "g1"): 1.0})
        groups = await control.client.groups()
        assert [(g.group.id, g.state) for g in groups] == [
            ("g0", GroupState.SERVING),
            ("g1", GroupState.SERVING),
        ]
        assert [node.id for node in await control.client.nodes()] == ["n-g0", "n-g1"]


async def test_control_flips_a_group_when_asked(
    control: ControlUnderTest, sockets: Callable[[str], str]
) -> None:
    """The router sees the group leave the routes and come back in its new phase."""
    async with fleet(control, sockets, g0=PREFILL, g1=DECODE, g2=DECODE) as (workers, router):
        before = router.watch.epoch
        flip = await control.client.flip("g2", PREFILL, drain_timeout_s=3, request_id="f-1")
        assert (flip.step, flip.failure) == (FlipStep.DONE, "")
        assert (flip.drain_s, flip.switch_s) == (0.25, 0.5)
        assert workers["g2"].switches[0].plan_epoch == before + 1
        plan = await followed(router, lambda plan: plan.epoch == before + 2)
        assert set(weights(plan)) == {("g0", "g1"), ("g2", "g1")}
        assert flip.plan_epoch == plan.epoch
        assert await control.client.flips() == (flip,)
        again = await control.client.flip("g2", PREFILL, request_id="f-1")
        assert again == flip
        assert len(workers["g2"].switches) == 1
