"""Measured links, from a worker's heartbeat to the operator and to the planner."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from fleet_fakes import fleet, make_link, make_worker

from thunderserve.control.registry import MemberSession
from thunderserve.core.fleet import Heartbeat
from thunderserve.core.links import MeasuredLink, changed_materially
from thunderserve.core.plan import Phase
from thunderserve.runtime.store.memory import MemoryStore

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from control_under_test import ControlUnderTest

    Sockets = Callable[[str], str]

PREFILL, DECODE = Phase.PREFILL, Phase.DECODE


async def test_control_lists_links_when_heartbeats_carry_them(
    control: ControlUnderTest, sockets: Sockets
) -> None:
    """The newest rates are listed, and links that are no longer said are gone."""
    async with fleet(control.addresses, sockets, g0=PREFILL, g1=DECODE) as (workers, _):
        assert await control.client.links() == ()
        for rate in (1e8, 1.01e8):
            link = make_link("g1:7400", rate)
            workers["g0"].measure(link)
            wanted = (MeasuredLink("g0", "g1", "n-g0", "n-g1", link),)
            await _until(control.client.links, wanted)
        workers["g0"].measure()
        await _until(control.client.links, ())


async def test_registry_writes_a_link_when_it_changed_materially_alone() -> None:
    """Every heartbeat has other ages and rates; the store is written for those that plan."""
    store = MemoryStore()
    session = MemberSession(store, "/m", make_worker("g0"), lease_ttl_s=5.0)

    async def record_after(rate: float) -> bytes:
        session.beat(Heartbeat(phase=PREFILL, links=(make_link("g1:7400", rate),)))
        for _ in range(20):
            await asyncio.sleep(0)
        entry = await store.get("/m")
        return entry.value if entry else b""

    first, alike, other = [await record_after(rate) for rate in (1e8, 1.05e8, 1.5e8)]
    session.close()
    assert first == alike
    assert other not in {first, b""}


def test_link_change_is_material_when_a_rate_moves_a_tenth_or_a_link_comes() -> None:
    """A tenth is more than the noise of what is measured."""
    before = (make_link("a", 1e8), make_link("b", 1e9))
    assert not changed_materially(before, (make_link("a", 1.09e8), make_link("b", 0.95e9)))
    assert changed_materially(before, (make_link("a", 1.2e8), make_link("b", 1e9)))
    assert changed_materially(before, before[:1])
    assert changed_materially((), before)


async def _until(ask: Callable[[], Awaitable[object]], wanted: object) -> None:
    async with asyncio.timeout(10):
        while await ask() != wanted:  # noqa: ASYNC110 - only asking tells
            await asyncio.sleep(0.01)
