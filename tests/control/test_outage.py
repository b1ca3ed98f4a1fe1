"""The store goes away and comes back: reads and members live on, writes wait or say so."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from control_under_test import running
from fleet_fakes import fleet, followed, weights

from thunderserve.control.config import ControlConfig, StoreKind
from thunderserve.core.errors import UnavailableError
from thunderserve.core.fleet import FlipStep
from thunderserve.core.plan import Phase

if TYPE_CHECKING:
    from collections.abc import Callable

    from etcd_server import EtcdServer

PREFILL, DECODE = Phase.PREFILL, Phase.DECODE
pytestmark = pytest.mark.etcd


async def test_control_serves_on_when_etcd_is_away_and_writes_when_it_is_back(
    own_etcd: EtcdServer, sockets: Callable[[str], str]
) -> None:
    """Nobody is taken for lost because of an outage, and epochs go on from where they were."""
    config = ControlConfig(
        address=sockets("control"),
        model_name="thunder-demo-7m",
        store=StoreKind.ETCD,
        etcd_endpoints=(own_etcd.endpoint,),
        lease_ttl_s=2.0,
        heartbeat_interval_s=0.05,
        expected_workers=3,
    )
    async with (
        running(config) as control,
        fleet(control.addresses, sockets, g0=PREFILL, g1=DECODE, g2=DECODE) as (_, router),
    ):
        before = await control.client.plan()
        own_etcd.stop()
        assert await control.client.plan() == before
        with pytest.raises(UnavailableError, match=r"etcd|lead"):
            await control.client.drain("g2")
        own_etcd.start()
        while True:
            try:
                await control.client.drain("g2")
                break
            except UnavailableError:
                await asyncio.sleep(0.05)
        after = await followed(router, lambda plan: plan.epoch > before.epoch)
        assert set(weights(after)) == {("g0", "g1")}
        assert router.epochs == [before.epoch, before.epoch + 1]
        assert "drained" in after.reason
        await control.client.undrain("g2")
        flip = await control.client.flip("g2", PREFILL)
        assert flip.step is FlipStep.DONE
