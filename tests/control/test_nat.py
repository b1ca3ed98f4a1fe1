"""Behind NAT: others reach a process at another address than the one that it listens on."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from control_under_test import ControlUnderTest, running
from fleet_fakes import FakeRouter, FakeWorker, fleet, followed
from port_forwarder import forwarding_to

from thunderserve.core.errors import UnavailableError
from thunderserve.core.fleet import FlipStep
from thunderserve.core.plan import Phase

if TYPE_CHECKING:
    from collections.abc import Callable

    Sockets = Callable[[str], str]

PREFILL, DECODE = Phase.PREFILL, Phase.DECODE
PHASES = {"g0": PREFILL, "g1": DECODE, "g2": DECODE}


async def test_control_and_routers_are_told_the_advertised_address_of_a_worker(
    control: ControlUnderTest, sockets: Sockets
) -> None:
    """The plan names the forwarder, and a flip goes through it."""
    async with (
        asyncio.timeout(30),
        forwarding_to(sockets("g2")) as nat,
        AsyncExitStack() as stack,
    ):
        router = await stack.enter_async_context(FakeRouter("r0", control.addresses))
        for name, phase in PHASES.items():
            advertised = nat.address if name == "g2" else ""
            worker = FakeWorker(name, phase, sockets(name), control.addresses, advertised)
            await stack.enter_async_context(worker)
        await followed(router, lambda plan: len(plan.groups) == len(PHASES))
        assert router.watch.view is not None
        told = router.watch.view.worker("g2")
        assert told is not None
        assert told.address == nat.address
        assert nat.connections == 0
        assert (await control.client.flip("g2", PREFILL)).step is FlipStep.DONE
        assert nat.connections > 0


@pytest.mark.etcd
async def test_follower_reaches_the_leader_at_its_advertised_address(
    etcd_control: ControlUnderTest, sockets: Sockets
) -> None:
    """A change that the follower is asked for passes the forwarder."""
    await etcd_control.stop()
    async with forwarding_to(etcd_control.config.address) as nat:
        etcd_control.config = replace(etcd_control.config, advertised_address=nat.address)
        await etcd_control.start()
        follower = replace(etcd_control.config, address=sockets("b"), advertised_address="")
        async with (
            fleet(etcd_control.addresses, sockets, g0=PREFILL, g1=DECODE),
            running(follower) as asked,
        ):
            while True:
                try:
                    await asked.client.drain("g1")
                    break
                except UnavailableError:
                    await asyncio.sleep(0.02)
            assert nat.connections > 0
        await etcd_control.stop()
