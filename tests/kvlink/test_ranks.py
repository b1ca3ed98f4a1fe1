"""Engines of several ranks over real sockets: any degrees on either side of a transfer."""

from __future__ import annotations

import asyncio
import contextlib
import time
import uuid
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from kv_parts import parts_of
from ranked_engine import PAGES, ROOM, RankedSide, ranks_of

from thunderserve.core.errors import PreconditionError, TransferError
from thunderserve.core.kv import KvLayout, KvPart
from thunderserve.core.plan import Phase
from thunderserve.core.request import WireMode
from thunderserve.kvlink.engine_client import EngineClient
from thunderserve.kvlink.protocol import Block, block_of_part

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

LAYOUT = KvLayout("tiny", 3, 2, 64, 4, "bfloat16")
MakeSide = Callable[..., Awaitable[Any]]
MakeEngine = Callable[..., Awaitable[Any]]
MakeCache = Callable[..., np.ndarray]


@pytest.fixture
async def make_engine(make_side: MakeSide) -> AsyncIterator[MakeEngine]:
    """Start a sidecar, and an engine of tp * pp ranks beside it."""
    # Every rank blocks a thread while it sends; the sidecars need some as well.
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(32))
    async with contextlib.AsyncExitStack() as stack:

        async def make(phase: Phase, tp: int, pp: int, layout: KvLayout = LAYOUT) -> RankedSide:
            side = await make_side(phase, layout, max_frame_bytes=8 * 1024)
            await asyncio.to_thread(side.client.close)  # its engine has one rank
            ranks = ranks_of(side, phase, replace(layout, tp=tp, pp=pp))
            for rank in ranks:
                stack.push_async_callback(asyncio.to_thread, rank.client.close)
                await asyncio.to_thread(rank.client.start)
            return RankedSide(side, ranks)

        yield make


async def reserved(prefill: RankedSide, decode: RankedSide, mode: WireMode) -> None:
    """A room that both sides' ranks know."""
    for each in (prefill, decode):
        await each.side.worker.announce(ROOM, mode)
    decode.reserve(prefill)
    for rank in prefill.ranks:
        assert await rank.told.wait_reserved(ROOM) == PAGES


@pytest.mark.parametrize("mode", [WireMode.RAW16, WireMode.INT4])
@pytest.mark.parametrize(
    ("sends", "receives"),
    [((1, 1), (2, 1)), ((2, 1), (1, 1)), ((1, 1), (1, 2)), ((1, 2), (1, 1)), ((2, 1), (1, 2)),
     ((2, 3), (2, 2)), ((4, 1), (1, 3)), ((1, 1), (4, 2))],
)  # fmt: skip
async def test_ranks_get_what_they_hold_when_degrees_differ(
    make_engine: MakeEngine,
    make_cache: MakeCache,
    sends: tuple[int, int],
    receives: tuple[int, int],
    mode: WireMode,
) -> None:
    """Layers and heads are cut anew on the way; four ranks of two heads hold copies."""
    prefill = await make_engine(Phase.PREFILL, *sends)
    decode = await make_engine(Phase.DECODE, *receives)
    cache = make_cache(LAYOUT, PAGES)
    await reserved(prefill, decode, mode)

    sending = (asyncio.to_thread(rank.send, cache, aux=b"first token") for rank in prefill.ranks)
    await asyncio.gather(*sending)

    assert await prefill.outcomes() == await decode.outcomes() == {"committed"}
    tolerance = 0 if mode is WireMode.RAW16 else 0.2
    for rank in decode.ranks:
        held = block_of_part(rank.part, 0, PAGES).slices()
        got = rank.told.caches[ROOM]
        assert close(got[held], cache[held], tolerance)
        assert np.count_nonzero(got) == np.count_nonzero(got[held]), "nothing of another rank's"
        assert rank.told.aux[ROOM] == b"first token"
    reports = [await each.side.worker.report(ROOM) for each in (prefill, decode)]
    assert reports[0].raw_bytes == reports[1].raw_bytes == cache.nbytes
    assert reports[0].wire_bytes == reports[1].wire_bytes


def close(got: np.ndarray, want: np.ndarray, tolerance: float) -> bool:
    """bfloat16 bit patterns, compared by root mean square."""
    got, want = ((v.astype(np.uint32) << 16).view(np.float32) for v in (got, want))
    return bool(np.sqrt(((got - want) ** 2).mean()) <= tolerance * np.sqrt((want**2).mean()))


async def test_prefill_side_hears_of_a_room_when_every_decode_rank_has_asked(
    make_engine: MakeEngine,
) -> None:
    """Before that a rank's memory is not ready for the pages."""
    prefill = await make_engine(Phase.PREFILL, 1, 1)
    decode = await make_engine(Phase.DECODE, 2, 1)
    decode.reserve(prefill, ranks=slice(1))
    await decode.side.worker.announce(8, WireMode.RAW16)  # answered after the reservation was read

    assert ROOM not in prefill.ranks[0].told.page_counts
    decode.reserve(prefill, ranks=slice(1, None))

    assert await prefill.ranks[0].told.wait_reserved(ROOM) == PAGES


async def test_room_fails_on_every_rank_when_ranks_ask_for_different_things(
    make_engine: MakeEngine,
) -> None:
    """The ranks of one engine must mean the same prompt."""
    prefill = await make_engine(Phase.PREFILL, 1, 1)
    decode = await make_engine(Phase.DECODE, 2, 1)

    decode.reserve(prefill, PAGES, ranks=slice(1))
    decode.reserve(prefill, PAGES + 1, ranks=slice(1, None))

    for outcome in await decode.outcomes():
        assert "for 10 pages" in outcome
        assert "for 9" in outcome
    with pytest.raises(TransferError, match="another rank"):
        await decode.side.worker.report(ROOM)


@pytest.mark.parametrize("side", ["prefill", "decode"])
async def test_every_rank_hears_of_an_abort_when_one_rank_asks(
    make_engine: MakeEngine, side: str
) -> None:
    """On both sides, with the reason."""
    prefill = await make_engine(Phase.PREFILL, 2, 1)
    decode = await make_engine(Phase.DECODE, 1, 2)
    await reserved(prefill, decode, WireMode.RAW16)

    {"prefill": prefill, "decode": decode}[side].ranks[1].client.abort(ROOM, "client went away")

    for outcome in await prefill.outcomes() | await decode.outcomes():
        assert "client went away" in outcome


async def test_room_does_not_commit_when_a_rank_has_not_sent_its_part(
    make_engine: MakeEngine, make_cache: MakeCache
) -> None:
    """The books name the layer and the head."""
    prefill = await make_engine(Phase.PREFILL, 2, 1)
    decode = await make_engine(Phase.DECODE, 1, 1)
    await reserved(prefill, decode, WireMode.RAW16)

    await asyncio.to_thread(prefill.ranks[0].send, make_cache(LAYOUT, PAGES))
    await asyncio.to_thread(prefill.ranks[1].client.finish, ROOM)

    (outcome,) = await prefill.outcomes()
    assert "layer 0, head 1; 3 of 6 heads are incomplete" in outcome
    assert "head 1" in (await decode.outcomes()).pop()


async def test_room_fails_when_a_rank_sends_what_another_holds(
    make_engine: MakeEngine, make_cache: MakeCache
) -> None:
    """A rank that is confused of its place must not overwrite another's pages."""
    prefill = await make_engine(Phase.PREFILL, 1, 3)
    decode = await make_engine(Phase.DECODE, 1, 1)
    await reserved(prefill, decode, WireMode.RAW16)

    client = prefill.ranks[1].client
    await asyncio.to_thread(client.send_pages, ROOM, 0, make_cache(LAYOUT, PAGES)[:1], 0)

    assert "not of what rank 1 holds" in (await prefill.outcomes()).pop()


async def test_rooms_are_lost_when_one_rank_disconnects_until_it_returns(
    make_engine: MakeEngine,
) -> None:
    """An engine without one of its ranks is no engine; with all of them it is one again."""
    prefill = await make_engine(Phase.PREFILL, 2, 1)
    decode = await make_engine(Phase.DECODE, 1, 1)
    await reserved(prefill, decode, WireMode.RAW16)

    prefill.ranks[1].client._link.socket.shut()  # it connects again by itself

    for outcome in await prefill.outcomes() | await decode.outcomes():
        assert "disconnected" in outcome or "went away" in outcome
    asking, told = decode.ranks[0], prefill.ranks[1].told.page_counts
    for room in range(100, 300):
        asking.told.expect(room, PAGES)
        asking.client.reserve(room, prefill.side.config.address, PAGES)
        await asyncio.to_thread(wait_for_one, room, told, asking.told.outcome)
        if room in told:
            return
        assert "no engine is registered" in asking.told.outcome[room]
    pytest.fail("the rank did not return")


def wait_for_one(room: int, *books: dict[int, Any]) -> None:
    """Until either side has said something of a room."""
    while not any(room in book for book in books):
        time.sleep(0.01)


async def test_new_engine_replaces_the_old_one_when_its_last_rank_is_there(
    make_engine: MakeEngine,
) -> None:
    """A change of phase: the old ranks leave and the new ones come, in any order."""
    prefill = await make_engine(Phase.PREFILL, 1, 1)
    changing = await make_engine(Phase.PREFILL, 2, 1)
    ranks = ranks_of(changing.side, Phase.DECODE, replace(LAYOUT, tp=2))
    decode = RankedSide(changing.side, ranks)
    try:
        for old, new in zip(changing.ranks, ranks, strict=True):
            await asyncio.to_thread(old.client.close)
            await asyncio.to_thread(new.client.start)

        decode.reserve(prefill)

        assert await prefill.ranks[0].told.wait_reserved(ROOM) == PAGES
    finally:
        for rank in ranks:
            await asyncio.to_thread(rank.client.close)


async def test_reservation_fails_when_the_prefill_engine_lacks_a_rank(
    make_engine: MakeEngine,
) -> None:
    """It is named, so that an operator sees an engine that is starting."""
    prefill = await make_engine(Phase.PREFILL, 2, 1)
    decode = await make_engine(Phase.DECODE, 1, 1)
    await asyncio.to_thread(prefill.ranks[1].client.close)

    decode.reserve(prefill)

    assert "no engine is registered" in (await decode.outcomes()).pop()


async def test_rank_is_refused_when_the_ranks_do_not_make_up_the_cache(make_side: MakeSide) -> None:
    """Two ranks that say they are the same half would leave the other half empty."""
    side = await make_side(Phase.DECODE)
    layout = replace(LAYOUT, tp=2)
    left, right = parts_of(layout, 2, 1)
    name, told = uuid.uuid4().hex, side.engine
    wrong = (
        replace(right, first_head=0),
        replace(right, first_layer=1),
        replace(right, rank_count=3),
    )

    def client(part: KvPart) -> EngineClient:
        path = side.config.engine_socket
        return EngineClient(path, layout, Phase.DECODE, told, part=part, engine=name)

    first = client(left)
    await asyncio.to_thread(first.start)
    try:
        for part in wrong:
            with pytest.raises(PreconditionError, match="ranks"):
                await asyncio.to_thread(client(part).start)
    finally:
        await asyncio.to_thread(first.close)


async def test_client_fails_a_room_when_its_engine_cannot_take_the_pages(
    make_engine: MakeEngine, make_cache: MakeCache
) -> None:
    """Also when the sidecar has committed it by then: a wrong cache is never decoded from."""
    prefill = await make_engine(Phase.PREFILL, 1, 1)
    decode = await make_engine(Phase.DECODE, 1, 1)
    await reserved(prefill, decode, WireMode.RAW16)

    def fail_late(_room: int, block: Block, _values: object) -> None:
        if (block.end_layer, block.end_page) != (LAYOUT.layer_count, PAGES):
            return  # the sidecar has no slot left for what follows
        prefill.ranks[0].told._wait(prefill.ranks[0].told.outcome, ROOM)
        raise RuntimeError("no memory")

    decode.ranks[0].told.on_pages = fail_late
    await asyncio.to_thread(prefill.ranks[0].send, make_cache(LAYOUT, PAGES))

    assert await prefill.outcomes() == {"committed"}
    assert await decode.outcomes() == {"the engine failed on PAGES"}
