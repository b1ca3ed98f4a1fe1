"""Two sidecars and two engines: pages that leave one arrive in the other."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from thunderserve.core.errors import TransferError
from thunderserve.core.plan import Phase
from thunderserve.core.request import WireMode
from thunderserve.kvlink.codec.float16 import to_float32
from thunderserve.kvlink.links import Bulk

if TYPE_CHECKING:
    from thunderserve.core.kv import KvLayout

Pair = tuple[Any, Any]
MakeCache = Callable[..., np.ndarray]
MakeSide = Callable[..., Awaitable[Any]]


@pytest.fixture(params=list(Bulk))
async def pair(make_side: MakeSide, request: pytest.FixtureRequest) -> Pair:
    """With frames on a connection of their own, and within gRPC: nobody can tell."""
    settings = {"max_frame_bytes": 32 * 1024, "bulk": request.param}  # a cache takes several
    return await make_side(Phase.PREFILL, **settings), await make_side(Phase.DECODE, **settings)


async def offer(
    prefill: Any, decode: Any, room: int, cache: np.ndarray, mode: WireMode = WireMode.RAW16
) -> None:
    """Announce and reserve a room, as the workers and the decode engine do."""
    await prefill.worker.announce(room, mode)
    await decode.worker.announce(room, mode)
    decode.engine.expect(room, cache.shape[2])
    decode.client.reserve(room, prefill.config.address, cache.shape[2])
    assert await prefill.engine.wait_reserved(room) == cache.shape[2]


def send(prefill: Any, room: int, cache: np.ndarray, aux: bytes = b"aux") -> None:
    prefill.client.send_pages(room, 0, cache)
    prefill.client.send_aux(room, aux)
    prefill.client.finish(room)


async def test_transfer_is_exact_when_raw16(
    pair: Pair, layout: KvLayout, make_cache: MakeCache
) -> None:
    """raw16 carries every bit, the aux data included, and both reports agree."""
    prefill, decode = pair
    cache = make_cache(layout, 40)
    await offer(prefill, decode, 7, cache)

    await asyncio.to_thread(send, prefill, 7, cache, b"first token")

    assert await decode.engine.wait_ended(7) == "committed"
    assert await prefill.engine.wait_ended(7) == "committed"
    assert np.array_equal(decode.engine.caches[7], cache)
    assert decode.engine.aux[7] == b"first token"
    sent, received = await prefill.worker.report(7), await decode.worker.report(7)
    assert sent.raw_bytes == received.raw_bytes == cache.nbytes
    assert sent.wire_bytes == received.wire_bytes > cache.nbytes
    assert sent.seconds > 0
    assert sent.wire_mode is WireMode.RAW16


async def test_transfer_is_close_and_small_when_int4(
    pair: Pair, layout: KvLayout, make_cache: MakeCache
) -> None:
    """int4 keeps the values within a few percent in less than a third of the bytes."""
    prefill, decode = pair
    cache = make_cache(layout, 64)
    await offer(prefill, decode, 8, cache, WireMode.INT4)

    await asyncio.to_thread(send, prefill, 8, cache)

    assert await decode.engine.wait_ended(8) == "committed"
    want, got = (to_float32(c, layout.dtype) for c in (cache, decode.engine.caches[8]))
    assert np.sqrt(((want - got) ** 2).mean()) < 0.05 * np.sqrt((want**2).mean())
    report = await prefill.worker.report(8)
    assert report.wire_bytes * 3 < report.raw_bytes


async def test_transfer_keeps_order_when_chunks_and_rooms_interleave(
    pair: Pair, layout: KvLayout, make_cache: MakeCache
) -> None:
    """Rooms that are sent in chunks at the same time do not mix."""
    prefill, decode = pair
    caches = {room: make_cache(layout, 9 + room, seed=room) for room in range(1, 9)}
    for room, cache in caches.items():
        await offer(prefill, decode, room, cache)

    def send_in_chunks(room: int) -> None:
        cache = caches[room]
        for first in range(0, cache.shape[2], 4):
            prefill.client.send_pages(room, first, cache[:, :, first : first + 4])
        prefill.client.send_aux(room, b"%d" % room)
        prefill.client.finish(room)

    # Threads of their own: the sidecars, in this process too, need those of the event loop.
    with ThreadPoolExecutor(len(caches)) as threads:
        loop = asyncio.get_running_loop()
        await asyncio.gather(*(loop.run_in_executor(threads, send_in_chunks, r) for r in caches))

    for room, cache in caches.items():
        assert await decode.engine.wait_ended(room) == "committed"
        assert np.array_equal(decode.engine.caches[room], cache)
        assert decode.engine.aux[room] == b"%d" % room


async def test_finish_fails_the_room_when_pages_are_missing(
    pair: Pair, layout: KvLayout, make_cache: MakeCache
) -> None:
    """A room never commits without all of its pages, and both sides hear why."""
    prefill, decode = pair
    cache = make_cache(layout, 10)
    await offer(prefill, decode, 5, cache)

    await asyncio.to_thread(send, prefill, 5, cache[:, :, :9])

    assert "pages missing" in await prefill.engine.wait_ended(5)
    assert "pages missing" in await decode.engine.wait_ended(5)
    with pytest.raises(TransferError, match="pages missing"):
        await decode.worker.report(5)


async def test_transfer_fails_alone_when_pages_come_twice(
    pair: Pair, layout: KvLayout, make_cache: MakeCache
) -> None:
    """Other rooms go on while one is refused."""
    prefill, decode = pair
    cache = make_cache(layout, 10)
    await offer(prefill, decode, 5, cache)
    await offer(prefill, decode, 6, cache)

    await asyncio.to_thread(prefill.client.send_pages, 5, 0, cache)
    await asyncio.to_thread(send, prefill, 5, cache)
    await asyncio.to_thread(send, prefill, 6, cache)

    assert "came before" in await decode.engine.wait_ended(5)
    assert await decode.engine.wait_ended(6) == "committed"


async def test_transfer_fails_when_int4_meets_nan(
    pair: Pair, layout: KvLayout, make_cache: MakeCache
) -> None:
    """A lossy codec refuses what it cannot carry."""
    prefill, decode = pair
    cache = make_cache(layout, 20)
    cache[1, 0, 3, 0, 0, 0] = 0x7FC0
    await offer(prefill, decode, 5, cache, WireMode.INT4)

    await asyncio.to_thread(send, prefill, 5, cache)

    assert "NaN" in await decode.engine.wait_ended(5)


@pytest.mark.parametrize("side", ["prefill", "decode"])
async def test_abort_ends_the_room_on_both_sides_when_either_asks(
    pair: Pair, layout: KvLayout, make_cache: MakeCache, side: str
) -> None:
    """Either engine may give up, and the other hears it at once."""
    prefill, decode = pair
    await offer(prefill, decode, 5, make_cache(layout, 4))

    {"prefill": prefill, "decode": decode}[side].client.abort(5, "client went away")

    assert "client went away" in await prefill.engine.wait_ended(5)
    assert "client went away" in await decode.engine.wait_ended(5)


async def test_prefill_side_hears_when_decode_aborts_before_it_reserved(pair: Pair) -> None:
    """The prefill request would wait for a reservation until the room is overdue."""
    prefill, decode = pair
    await prefill.worker.announce(5, WireMode.RAW16)

    decode.client.abort(5, "cancelled early", prefill.config.address)

    assert "cancelled early" in await prefill.engine.wait_ended(5)
    with pytest.raises(TransferError, match="cancelled early"):
        await prefill.worker.report(5)


async def test_reserve_is_refused_when_the_prefill_side_aborted_before(pair: Pair) -> None:
    """An abort that overtakes the reservation still holds."""
    prefill, decode = pair
    prefill.client.abort(5, "cancelled early")
    await prefill.worker.announce(6, WireMode.RAW16)  # the abort was read before this answered

    decode.engine.expect(5, 3)
    decode.client.reserve(5, prefill.config.address, 3)

    assert "cancelled early" in await decode.engine.wait_ended(5)


async def test_engine_loss_aborts_its_rooms_when_it_disconnects(
    pair: Pair, layout: KvLayout, make_cache: MakeCache
) -> None:
    """The other side does not wait for an engine that is gone."""
    prefill, decode = pair
    await offer(prefill, decode, 5, make_cache(layout, 4))

    await asyncio.to_thread(prefill.client.close)

    assert "disconnected" in await decode.engine.wait_ended(5)


async def test_prefill_engine_hears_when_its_room_will_never_be_reserved(
    make_side: MakeSide, layout: KvLayout
) -> None:
    """A refused reservation ends the prefill side's request too; nobody waits for a timeout."""
    prefill = await make_side(Phase.PREFILL)
    other = type(layout)("other", 3, 2, 64, 4, "bfloat16")
    decode = await make_side(Phase.DECODE, other)
    await prefill.worker.announce(5, WireMode.RAW16)
    decode.engine.expect(5, 3)

    decode.client.reserve(5, prefill.config.address, 3)

    assert "model_fingerprint" in await prefill.engine.wait_ended(5)
    with pytest.raises(TransferError, match="model_fingerprint"):
        await prefill.worker.report(5)


async def test_reserve_fails_when_layouts_differ(make_side: MakeSide, layout: KvLayout) -> None:
    """Engines of different models never exchange a byte; the field is named."""
    prefill = await make_side(Phase.PREFILL)
    other = type(layout)("other", 3, 2, 64, 4, "bfloat16")
    decode = await make_side(Phase.DECODE, other)
    decode.engine.expect(5, 3)

    decode.client.reserve(5, prefill.config.address, 3)

    assert "model_fingerprint" in await decode.engine.wait_ended(5)


async def test_reserve_fails_when_the_peer_is_in_another_phase(make_side: MakeSide) -> None:
    """A stale route is refused, not served."""
    first, second = await make_side(Phase.DECODE), await make_side(Phase.DECODE)
    second.engine.expect(5, 3)

    second.client.reserve(5, first.config.address, 3)

    assert "not PREFILL" in await second.engine.wait_ended(5)


async def test_reserve_fails_when_nobody_listens(make_side: MakeSide) -> None:
    """An unreachable prefill side is an answer, not a hang."""
    decode = await make_side(Phase.DECODE)
    decode.engine.expect(5, 3)

    decode.client.reserve(5, "127.0.0.1:1", 3)

    assert "127.0.0.1:1" in await decode.engine.wait_ended(5)


async def test_room_fails_when_it_is_never_reserved(make_side: MakeSide) -> None:
    """A worker that asks for a report gets one, even when nobody came."""
    prefill = await make_side(Phase.PREFILL, transfer_timeout_s=0.1)
    await prefill.worker.announce(5, WireMode.RAW16)

    with pytest.raises(TransferError, match="in time"):
        await prefill.worker.report(5)
