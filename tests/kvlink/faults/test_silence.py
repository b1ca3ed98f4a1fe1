"""K1, K4: a network that swallows what it is given: nothing comes, and nobody is told."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import pytest_asyncio
from fault_arena import close_arena, open_arena
from fault_proxy import Cut, Direction, Fault

from thunderserve.core.request import WireMode

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from fault_arena import Arena

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(600)]
MODES = (WireMode.RAW16, WireMode.INT4)
# Within a header, within a payload, and between two frames.
SILENT_AT = (1, 59, 60, 61, 200, 400)
SAMPLE = pytest.param(SILENT_AT, id="sample")
EVERY = pytest.param(tuple(range(0, 575, 3)), marks=pytest.mark.sweep, id="every")


async def test_others_get_the_buffers_when_a_link_falls_silent_amid_frames(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """K5: more silent rooms than buffers, and two minutes until they are overdue."""
    folder = tmp_path_factory.mktemp("few")
    arena = await open_arena(folder, max_rooms=24, buffer_count=2, stall_timeout_s=0.4)
    try:
        outcomes = await arena.suffer([Fault(Cut.BLACKHOLE, 400)] * 6, WireMode.RAW16)
        assert all("within 0.4 s" in outcome.decode for outcome in outcomes)
        await arena.check_well()
    finally:
        await close_arena(arena)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def impatient(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Arena]:
    """Gives up soon, and has two buffers."""
    folder = tmp_path_factory.mktemp("impatient")
    arena = await open_arena(
        folder, max_rooms=24, buffer_count=2, stall_timeout_s=0.4, transfer_timeout_s=1.0
    )
    yield arena
    await close_arena(arena)


@pytest.mark.parametrize("places", [SAMPLE, EVERY])
@pytest.mark.parametrize("mode", MODES)
async def test_rooms_fail_by_name_when_the_link_falls_silent(
    impatient: Arena, mode: WireMode, places: tuple[int, ...]
) -> None:
    """K1: nothing is closed, nothing comes; not even the answer, or the last byte of it."""
    forth = [Fault(Cut.BLACKHOLE, at_byte) for at_byte in places]
    back = [Fault(Cut.BLACKHOLE, at_byte, direction=Direction.BACK) for at_byte in (0, 30, 59)]
    for start in range(0, len(forth), 16):
        for outcome in await impatient.suffer(forth[start : start + 16], mode):
            assert outcome.decode != "committed"
    for outcome in await impatient.suffer(back, mode):
        assert outcome.prefill != "committed"
        assert outcome.exact
    await impatient.check_well()


async def test_room_fails_and_the_next_arrives_when_an_idle_connection_is_dead(
    impatient: Arena,
) -> None:
    """K4: a NAT has forgotten the connection and tells nobody."""
    await impatient.proxy.reset()
    before = impatient.proxy.connection_count
    assert (await impatient.transfer(WireMode.RAW16)).exact
    assert impatient.proxy.connection_count == before + 1

    impatient.proxy.forget_connections()
    lost = await impatient.transfer(WireMode.RAW16)

    assert impatient.proxy.connection_count == before + 1  # it was used again
    assert lost.holds
    assert lost.decode != "committed"
    await impatient.check_well()
