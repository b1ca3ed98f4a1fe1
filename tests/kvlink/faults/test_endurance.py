"""K2, K4, K5: slow and silent networks, connections that are dead, nothing left to give."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

import pytest
from fault_proxy import Fault

from thunderserve.core.request import WireMode

if TYPE_CHECKING:
    from fault_arena import Arena

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(600)]
MODES = (WireMode.RAW16, WireMode.INT4)
COMMITTED = {("committed", "committed")}


@pytest.mark.parametrize("mode", MODES)
async def test_cache_arrives_when_bytes_come_three_at_a_time(arena: Arena, mode: WireMode) -> None:
    """K2: no read sees a whole header."""
    outcomes = await arena.suffer([Fault(piece_bytes=3)] * 8, mode)

    assert {(each.prefill, each.decode) for each in outcomes} == COMMITTED


@pytest.mark.parametrize("mode", MODES)
async def test_cache_arrives_when_the_link_becomes_slow(arena: Arena, mode: WireMode) -> None:
    """K2: a tenth of a second for what took none, from the middle of a frame on."""
    slow = Fault(at_byte=300, piece_bytes=100, bytes_per_s=5000)

    outcomes = await arena.suffer([slow] * 8, mode)

    assert {(each.prefill, each.decode) for each in outcomes} == COMMITTED


async def test_room_is_refused_by_name_when_all_are_taken(arena: Arena) -> None:
    """K5: the request fails at once; the open ones go on, and the next come in."""
    most = arena.decode.config.max_rooms
    rooms = [await arena.offer(WireMode.RAW16) for _ in range(most)]
    refused = next(arena.rooms)
    arena.decode.engine.expect(refused, arena.cache.shape[2])

    arena.decode.client.reserve(refused, arena.prefill.config.address, arena.cache.shape[2])

    assert "as many as are allowed" in await arena.decode.engine.wait_ended(refused)
    await asyncio.gather(*(asyncio.to_thread(arena._send, room) for room in rooms))
    for room in rooms:
        assert (await arena.outcome(room, WireMode.RAW16)).exact
    await arena.check_well()


async def test_rooms_that_were_aborted_on_either_side_are_free_again(arena: Arena) -> None:
    """K5: as many again, four times."""
    for turn in range(4):
        rooms = [await arena.offer(WireMode.RAW16) for _ in range(arena.decode.config.max_rooms)]
        side = (arena.prefill, arena.decode)[turn % 2]
        for room in rooms:
            side.client.abort(room, "the client went away")
        for room in rooms:
            outcome = await arena.outcome(room, WireMode.RAW16)
            assert "the client went away" in outcome.prefill
            assert "the client went away" in outcome.decode
    await arena.check_well()


async def test_others_are_served_when_a_peer_opens_connections_and_says_nothing(
    arena: Arena,
) -> None:
    """K5: sixty of them, half with half a header."""
    opened = [await arena.connect() for _ in range(60)]
    for _, writer in opened[::2]:
        writer.write(b"TSKV\0\3")

    outcome = await arena.transfer(WireMode.RAW16)

    assert outcome.exact
    for _, writer in opened:
        with contextlib.suppress(ConnectionError):
            writer.transport.abort()
    await arena.check_well()
