"""Replicas on one etcd: each is read and written through, one decides, the others take over."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from control_under_test import ControlUnderTest, running
from fleet_fakes import FakeRouter, fleet, followed

from thunderserve.client.control import ControlClient
from thunderserve.core.errors import NotFoundError, PreconditionError, UnavailableError
from thunderserve.core.fleet import FlipStep
from thunderserve.core.plan import Phase

if TYPE_CHECKING:
    from collections.abc import Callable

    Sockets = Callable[[str], str]

PREFILL, DECODE = Phase.PREFILL, Phase.DECODE
pytestmark = pytest.mark.etcd


async def test_follower_serves_reads_and_takes_over_when_the_leader_stops(
    etcd_control: ControlUnderTest, sockets: Sockets
) -> None:
    """Members attached to the leader go to the follower; epochs go on from the leader's last."""
    leader, follower_address = etcd_control, sockets("follower")
    both = (leader.config.address, follower_address)
    async with (
        running(replace(leader.config, address=follower_address)) as follower,
        fleet(both, sockets, g0=PREFILL, g1=DECODE) as (_, router),
        FakeRouter("r1", (follower_address,)) as at_follower,
    ):
        plan = await followed(at_follower, lambda plan: bool(plan.routes))
        assert await follower.client.plan() == plan
        assert await follower.client.groups() != ()
        await leader.stop()
        while True:
            try:
                await follower.client.drain("g1")
                break
            except UnavailableError:
                await asyncio.sleep(0.02)
        after = await followed(router, lambda plan: not plan.routes)
        assert after.epoch == plan.epoch + 1


async def test_follower_forwards_changes_when_it_is_asked_for_them(
    etcd_control: ControlUnderTest, sockets: Sockets
) -> None:
    """The leader's answers and refusals come back, and the follower knows of the change by then."""
    address = sockets("follower")
    async with (
        running(replace(etcd_control.config, address=address)) as follower,
        fleet(etcd_control.addresses, sockets, g0=PREFILL, g1=DECODE, g2=DECODE),
    ):
        await _led(etcd_control, follower)
        before = (await follower.client.plan()).epoch
        await follower.client.drain("g2")
        drained = await follower.client.plan()
        assert (drained.epoch, len(drained.routes)) == (before + 1, 1)
        applied = await follower.client.apply_plan(drained, request_id="a-1")
        assert await etcd_control.client.apply_plan(drained, request_id="a-1") == applied
        flip = await follower.client.flip("g2", PREFILL)
        assert flip.step is FlipStep.DONE
        with pytest.raises(NotFoundError, match="no group g9"):
            await follower.client.drain("g9")
        with pytest.raises(PreconditionError, match="already"):
            await follower.client.flip("g2", PREFILL)


async def _led(leader: ControlUnderTest, follower: ControlUnderTest) -> None:
    """Wait until the follower knows who leads: it refuses until then."""
    assert leader.config.address != follower.config.address
    while True:
        try:
            await follower.client.undrain("g0")
            break
        except UnavailableError:
            await asyncio.sleep(0.02)


async def test_follower_names_the_leader_when_it_does_not_answer(
    etcd_control: ControlUnderTest, sockets: Sockets
) -> None:
    """The leader advertises an address where nobody listens."""
    nowhere = sockets("nowhere")
    await etcd_control.stop()
    etcd_control.config = replace(etcd_control.config, advertised_address=nowhere)
    await etcd_control.start()
    async with (
        fleet(etcd_control.addresses, sockets, g0=PREFILL, g1=DECODE),
        running(replace(etcd_control.config, address=sockets("b"), advertised_address="")) as b,
    ):
        while True:
            with pytest.raises(UnavailableError) as caught:
                await b.client.drain("g1")
            if nowhere in str(caught.value):
                break
            await asyncio.sleep(0.02)
        assert f"the leader at {nowhere} does not answer" in str(caught.value)


async def test_client_asks_the_next_replica_when_one_is_away(
    etcd_control: ControlUnderTest, sockets: Sockets
) -> None:
    """A list of addresses is as good as one that works."""
    addresses = f"{sockets('nobody')},{etcd_control.config.address}"
    async with (
        fleet(etcd_control.addresses, sockets, g0=PREFILL, g1=DECODE),
        ControlClient(addresses) as client,
    ):
        assert len(await client.groups()) == 2
        assert (await client.drain("g1")).group.id == "g1"
