"""Two replicas on one etcd: both are read, one writes, and the other takes over."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from control_under_test import ControlUnderTest, running
from fleet_fakes import FakeRouter, fleet, followed

from thunderserve.core.errors import UnavailableError
from thunderserve.core.plan import Phase

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.etcd


async def test_follower_serves_reads_and_takes_over_when_the_leader_stops(
    etcd_control: ControlUnderTest, sockets: Callable[[str], str]
) -> None:
    """The follower names the leader; afterwards epochs go on from the leader's last."""
    leader, follower_address = etcd_control, sockets("follower")
    both = (leader.config.address, follower_address)
    async with (
        running(replace(leader.config, address=follower_address)) as follower,
        fleet(both, sockets, g0=Phase.PREFILL, g1=Phase.DECODE) as (_, router),
        FakeRouter("r1", (follower_address,)) as at_follower,
    ):
        plan = await followed(at_follower, lambda plan: bool(plan.routes))
        assert await follower.client.plan() == plan
        assert await follower.client.groups() != ()
        with pytest.raises(UnavailableError, match=f"ask the leader at {leader.config.address}"):
            await follower.client.drain("g1")
        await leader.stop()
        while True:
            try:
                await follower.client.drain("g1")
                break
            except UnavailableError:
                await asyncio.sleep(0.02)
        after = await followed(router, lambda plan: not plan.routes)
        assert after.epoch == plan.epoch + 1
