"""auto over real sockets: what is chosen is measured, used and told."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from thunderserve.core.plan import Phase
from thunderserve.core.request import WireMode

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from thunderserve.core.kv import KvLayout
    from thunderserve.core.links import LinkMeasurement
    from thunderserve.core.request import TransferReport

    MakeCache = Callable[..., np.ndarray]
    MakeSide = Callable[..., Awaitable[Any]]

INT4, RAW16 = WireMode.INT4, WireMode.RAW16


async def transfer(
    prefill: Any, decode: Any, room: int, cache: np.ndarray, mode: WireMode
) -> TransferReport:
    await prefill.worker.announce(room, mode)
    decode.engine.expect(room, cache.shape[2])
    decode.client.reserve(room, prefill.config.address, cache.shape[2])
    await prefill.engine.wait_reserved(room)

    def send() -> None:
        prefill.client.send_pages(room, 0, cache)
        prefill.client.send_aux(room, b"aux")
        prefill.client.finish(room)

    await asyncio.to_thread(send)
    assert await decode.engine.wait_ended(room) == "committed"
    report: TransferReport = await prefill.worker.report(room)
    return report


async def test_report_says_why_when_the_sidecar_chose(
    make_side: MakeSide, layout: KvLayout, make_cache: MakeCache
) -> None:
    """A room that nobody decided is auto's, one that a request decided is the request's."""
    prefill, decode = await make_side(Phase.PREFILL), await make_side(Phase.DECODE)
    cache = make_cache(layout, 64)

    left = await transfer(prefill, decode, 1, cache, WireMode.DEFAULT)
    asked = await transfer(prefill, decode, 2, cache, RAW16)

    assert left.wire_mode in {INT4, RAW16}
    assert "x as fast as" in left.wire_reason
    assert (asked.wire_mode, asked.wire_reason) == (RAW16, "the request asks for it")


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"coarsest_mode": RAW16}, (RAW16, "nothing coarser is allowed")),
        ({"wire_mode": INT4, "coarsest_mode": RAW16}, (INT4, "this sidecar's wire_mode")),
    ],
)
async def test_operator_decides_when_the_configuration_says_so(
    make_side: MakeSide,
    layout: KvLayout,
    make_cache: MakeCache,
    settings: dict[str, WireMode],
    told: tuple[WireMode, str],
) -> None:
    """The floor binds auto alone; a mode that is configured is used as it is."""
    prefill = await make_side(Phase.PREFILL, **settings)
    decode = await make_side(Phase.DECODE)
    report = await transfer(prefill, decode, 1, make_cache(layout, 64), WireMode.DEFAULT)
    assert (report.wire_mode, report.wire_reason) == told


async def test_links_are_told_to_the_worker_when_transfers_went_there(
    make_side: MakeSide, layout: KvLayout, make_cache: MakeCache
) -> None:
    """Rate, round trip, age, and the mode that was chosen last for that peer."""
    prefill, decode = await make_side(Phase.PREFILL), await make_side(Phase.DECODE)
    cache = np.tile(make_cache(layout, 512), (1, 1, 16, 1, 1, 1))
    assert await prefill.worker.links() == ()

    links: tuple[LinkMeasurement, ...] = ()
    async with asyncio.timeout(60):
        room = 0
        while not links:
            room += 1
            report = await transfer(prefill, decode, room, cache, WireMode.AUTO)
            links = await prefill.worker.links()

    (link,) = links
    assert link.peer_address == decode.config.peer_address
    assert link.bytes_per_s > 1e6
    assert link.wire_mode is report.wire_mode
    assert await decode.worker.links() == ()
