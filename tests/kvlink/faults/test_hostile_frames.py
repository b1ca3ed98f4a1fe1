"""K3: a peer that speaks the protocol and lies in it: one room fails by name, nothing else does."""

from __future__ import annotations

import asyncio
import itertools
import random
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hostile_frames import Attack, Scene, attacks, good_transfer, shuffled

from thunderserve.core.request import WireMode
from thunderserve.kvlink.codec import Int4Codec
from thunderserve.kvlink.protocol import Block, FrameKind

if TYPE_CHECKING:
    from collections.abc import Iterable

    from fault_arena import Arena

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(1800)]
COMMITTED_BYTES = 60
AT_ONCE = 20


async def say(arena: Arena, *pieces: bytes, wait_s: float = 20) -> bytes:
    """Speak to the decode side as a prefill side would: COMMITTED, or nothing when it hangs up.

    It also waits for what was cut off; then this side hangs up.
    """
    reader, writer = await arena.connect()
    try:
        async with asyncio.timeout(wait_s):
            for piece in pieces:
                writer.write(piece)
                await writer.drain()
            return await reader.readexactly(COMMITTED_BYTES)
    except (ConnectionError, asyncio.IncompleteReadError, TimeoutError):
        return b""
    finally:
        writer.transport.abort()


async def check_arrived(arena: Arena, room: Scene) -> None:
    assert await arena.decode.engine.wait_ended(room.room) == "committed"
    assert np.array_equal(arena.decode.engine.caches[room.room], arena.cache)


async def scene(arena: Arena) -> Scene:
    return Scene(await arena.offer(WireMode.RAW16), arena.layout, arena.cache)


@pytest.mark.parametrize("attack", list(attacks()), ids=lambda attack: attack.name)
async def test_room_fails_by_name_when_its_frames_lie(arena: Arena, attack: Attack) -> None:
    """Both engines hear a reason that says what was wrong; a room beside it arrives."""
    attacked = await scene(arena)

    answer, beside = await asyncio.gather(
        say(arena, attack.data(attacked)), arena.transfer(WireMode.RAW16)
    )

    outcome = await arena.outcome(attacked.room, WireMode.RAW16)
    assert answer == b""
    assert attack.word in outcome.decode != "committed"
    assert attack.word in outcome.prefill != "committed"
    assert (beside.decode, beside.exact) == ("committed", True)
    await arena.wait_baseline()


async def test_nothing_was_lost_when_all_attacks_above_have_come(arena: Arena) -> None:
    """As many rooms as may be open still open, and all buffers are there."""
    await arena.check_well()


async def test_cache_arrives_when_frames_are_reordered(arena: Arena) -> None:
    """Pages and aux may come in any order, and in any split of blocks."""
    for order in itertools.permutations(range(4)):
        room = await scene(arena)
        parts = [room.page(0), room.page(1), room.page(2), room.aux]
        data = b"".join(parts[place] for place in order) + room.end

        assert len(await say(arena, data)) == COMMITTED_BYTES

        await check_arrived(arena, room)


async def test_replay_is_refused_when_the_room_has_ended(arena: Arena) -> None:
    """A recorded transfer changes nothing, on the same connection or another one."""
    room = await scene(arena)
    data = good_transfer(room)
    assert len(await say(arena, data)) == COMMITTED_BYTES
    await check_arrived(arena, room)
    arena.decode.engine.caches[room.room][:] = 0

    assert await say(arena, data) == b""
    assert await say(arena, room.page(1)) == b""

    assert not arena.decode.engine.caches[room.room].any()


async def test_second_connection_is_refused_when_a_room_has_one(arena: Arena) -> None:
    """It cannot disturb the first, which goes on."""
    room = await scene(arena)
    reader, writer = await arena.connect()
    writer.write(room.page(0))
    while not arena.decode.engine.caches[room.room].any():  # noqa: ASYNC110 - a thread writes it
        await asyncio.sleep(0.001)

    assert await say(arena, room.page(1)) == b""

    writer.write(room.page(1) + room.page(2) + room.aux + room.end)
    assert len(await reader.readexactly(COMMITTED_BYTES)) == COMMITTED_BYTES
    await check_arrived(arena, room)
    writer.transport.abort()


async def test_cache_arrives_when_bytes_come_three_at_a_time(arena: Arena) -> None:
    """K2: no read sees a whole header or payload."""
    room = await scene(arena)
    data = good_transfer(room)

    await say(arena, *_pieces(data, 3))

    await check_arrived(arena, room)


async def test_room_fails_alone_when_its_codes_unfold_beyond_a_frame(arena: Arena) -> None:
    """K3: int4 triples; the engine must not get more at once than it agreed to take."""
    layout = arena.layout
    pages = arena.decode.config.max_frame_bytes // layout.page_bytes + 1
    number = next(arena.rooms)
    await arena.prefill.worker.announce(number, WireMode.INT4)
    arena.decode.engine.expect(number, pages)
    arena.decode.client.reserve(number, arena.prefill.config.address, pages)
    await arena.prefill.engine.wait_reserved(number)
    bomb = Scene(number, layout, np.zeros(layout.block_shape(1, pages), np.uint16))

    _, beside = await asyncio.gather(say(arena, _int4_frame(bomb)), arena.transfer(WireMode.RAW16))

    assert "16-bit values" in await arena.decode.engine.wait_ended(number)
    assert beside.exact


@pytest.mark.parametrize("count", [60, pytest.param(10_000, marks=pytest.mark.sweep, id="many")])
async def test_room_is_exact_or_fails_by_name_when_its_frames_are_shuffled(
    arena: Arena, count: int
) -> None:
    """K3: dropped, doubled, moved, cut and rewritten, in any combination."""
    rng = random.Random(3)  # noqa: S311 - the same every time

    async def attack() -> None:
        room = await scene(arena)
        await say(arena, shuffled(room, rng), wait_s=0.3)
        # Frames that name no room end their connection alone; the honest side then gives up.
        arena.prefill.client.abort(room.room, "the prefill side gave up")
        outcome = await arena.outcome(room.room, WireMode.RAW16)
        assert outcome.holds, outcome

    for _ in range(0, count, AT_ONCE):
        await asyncio.gather(*(attack() for _ in range(AT_ONCE)))
    await arena.check_well()


def _pieces(data: bytes, size: int) -> Iterable[bytes]:
    return (data[at : at + size] for at in range(0, len(data), size))


def _int4_frame(room: Scene) -> bytes:
    size = Int4Codec(room.layout).payload_bytes(1, room.page_count)
    return room.frame(
        FrameKind.PAGES,
        bytes(size),
        block=Block(0, 1, 0, 1, 0, room.page_count),
        mode=WireMode.INT4,
    )
