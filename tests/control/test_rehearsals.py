"""What would be: drains that are only checked, and predictions of plans; over real gRPC."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from fleet_fakes import fleet

from thunderserve.core.errors import PreconditionError
from thunderserve.core.fleet import GroupState
from thunderserve.core.plan import Phase, Plan

if TYPE_CHECKING:
    from collections.abc import Callable

    from control_under_test import ControlUnderTest

    Sockets = Callable[[str], str]

PREFILL, DECODE = Phase.PREFILL, Phase.DECODE


async def test_drain_publishes_nothing_when_it_is_a_dry_run(
    control: ControlUnderTest, sockets: Sockets
) -> None:
    """The answer is how the group would stand; the plan and the group stay."""
    async with fleet(control.addresses, sockets, g0=PREFILL, g1=DECODE, g2=DECODE):
        before = await control.client.plan()

        would = await control.client.drain("g2", validate_only=True)

        assert would.state is GroupState.DRAINED
        assert await control.client.plan() == before
        assert {group.state for group in await control.client.groups()} == {GroupState.SERVING}


async def test_prediction_is_of_the_plan_that_was_asked_about(
    control: ControlUnderTest, sockets: Sockets
) -> None:
    """A plan that leaves a group unused serves no more than the one that uses it."""
    async with fleet(control.addresses, sockets, g0=PREFILL, g1=DECODE, g2=DECODE):
        plan = await control.client.plan()
        fewer = replace(plan, routes=(replace(plan.routes[0], weight=1.0),))

        goodput = [
            _goodput_rps(
                await control.client.predict_plan(
                    each, rate_rps=1e6, prompt_tokens=9, output_tokens=900
                )
            )
            for each in (plan, fewer)
        ]

        assert goodput[0] > goodput[1] > 0
        gone = replace(plan, groups=(), routes=())
        with pytest.raises(PreconditionError, match="no group of the plan is live"):
            await control.client.predict_plan(gone)


def _goodput_rps(plan: Plan) -> float:
    assert plan.predicted is not None
    return plan.predicted.goodput_rps
