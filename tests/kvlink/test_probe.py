"""Probes measure what no transfer did, are bounded, and give way to transfers."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from kvlink_sides import free_port

from thunderserve.core.errors import PreconditionError, UnavailableError
from thunderserve.core.links import LinkMethod
from thunderserve.core.plan import Phase
from thunderserve.core.request import WireMode
from thunderserve.kvlink import prober
from thunderserve.kvlink.links import Bulk
from thunderserve.kvlink.measuring import LinkEstimate, Probe, Window, probe, probe_link
from thunderserve.kvlink.measuring.probe import PROBE_BYTES, rate_of
from thunderserve.kvlink.protocol import (
    HEADER_BYTES,
    FrameError,
    FrameKind,
    decode_header,
    make_frame,
)
from thunderserve.kvlink.protocol import encode_header as encode

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from thunderserve.core.kv import KvLayout

    MakeCache = Callable[..., np.ndarray]
    MakeSide = Callable[..., Awaitable[Any]]

PIECE_BYTES = 256 << 10
WAIT_S = 20.0


class Peer:
    """A stream whose other end answers each frame at once."""

    closed = False

    def __init__(self, kind: FrameKind = FrameKind.PROBE) -> None:
        self.payload_bytes = 0
        self._kind = kind
        self._answers: asyncio.Queue[bytes] = asyncio.Queue()

    async def write(self, *buffers: Any) -> None:
        header = decode_header(buffers[0], PIECE_BYTES)
        self.payload_bytes += sum(map(len, buffers)) - HEADER_BYTES
        self._answers.put_nowait(encode(make_frame(self._kind, header.room, 0)))
        await asyncio.sleep(0)

    async def read_into(self, view: memoryview, stall_s: float | None = None) -> None:
        del stall_s
        view[:] = await self._answers.get()

    def close(self) -> None:
        """Nothing is open."""

    def info(self, name: str) -> None:
        del name


@given(st.floats(1e5, 1e10), st.integers(1, 16), st.floats(0, 1))
def test_rate_is_the_links_when_the_first_half_came_at_once(
    bytes_per_s: float, pieces: int, start_s: float
) -> None:
    """What passed through a queue on the way is not in it."""
    late = [start_s + PIECE_BYTES * (1 + n) / bytes_per_s for n in range(pieces)]
    half = pieces // 2
    marks = [start_s, *[start_s] * (half - 1), *late[max(0, half - 1) :]]
    assert rate_of(PIECE_BYTES, marks) == pytest.approx(bytes_per_s, rel=1e-3)


def test_rate_is_unknown_when_no_piece_was_answered() -> None:
    assert rate_of(PIECE_BYTES, [1.0]) == 0


async def test_probe_sends_eight_mebibytes_when_the_link_is_fast() -> None:
    peer = Peer()
    found = await probe_link(peer, lambda: False)
    assert peer.payload_bytes == PROBE_BYTES
    assert found.bytes_per_s > 0


async def test_probe_ends_early_when_its_time_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    """A slow link is not filled for long: no piece is sent after half a second."""
    peer = Peer()
    monkeypatch.setattr(probe, "PROBE_S", -1.0)
    await probe_link(peer, lambda: False)
    assert peer.payload_bytes == 0


async def test_probe_stops_and_tells_no_rate_when_a_transfer_comes() -> None:
    peer = Peer()
    found = await probe_link(peer, lambda: peer.payload_bytes >= 2 * PIECE_BYTES)
    assert peer.payload_bytes == 2 * PIECE_BYTES
    assert found.bytes_per_s == 0


async def test_probe_fails_when_the_peer_answers_something_else() -> None:
    with pytest.raises(FrameError, match="COMMITTED"):
        await probe_link(Peer(FrameKind.COMMITTED), lambda: False)


def test_estimate_is_of_traffic_again_when_a_transfer_tells_more() -> None:
    probed = LinkEstimate().probed(Probe(1e8, 0.01), 1.0)
    assert (probed.bytes_per_s, probed.rtt_s, probed.method) == (1e8, 0.01, LinkMethod.PROBE)
    told = probed.add(Window(10_000_000, 0.2), 2.0)
    assert (told.bytes_per_s, told.method) == (5e7, LinkMethod.TRAFFIC)


@pytest.mark.parametrize("bulk", list(Bulk))
async def test_worker_hears_of_a_link_when_it_has_it_probed(
    make_side: MakeSide, layout: KvLayout, make_cache: MakeCache, bulk: Bulk
) -> None:
    """Before any transfer, by either way; the connection then carries one."""
    prefill, decode = await make_side(Phase.PREFILL, bulk=bulk), await make_side(Phase.DECODE)
    found = await prefill.worker.probe(decode.config.address)
    assert found.method is LinkMethod.PROBE
    assert found.bytes_per_s > 1e6
    assert found.rtt_s > 0
    (told,) = await prefill.worker.links()
    assert (told.peer_address, told.bytes_per_s) == (decode.config.address, found.bytes_per_s)

    cache = make_cache(layout, 8)
    await transfer(prefill, decode, 1, cache)
    assert np.array_equal(decode.engine.caches[1], cache)


async def test_probe_is_refused_when_a_transfer_is_open(make_side: MakeSide) -> None:
    prefill, decode = await make_side(Phase.PREFILL), await make_side(Phase.DECODE)
    decode.engine.expect(1, 8)
    decode.client.reserve(1, prefill.config.address, 8)
    await prefill.engine.wait_reserved(1)
    with pytest.raises(PreconditionError, match=r"a transfer with .* is open"):
        await prefill.worker.probe(decode.config.address)


async def test_probe_is_refused_when_another_is_under_way(
    make_side: MakeSide, monkeypatch: pytest.MonkeyPatch
) -> None:
    prefill, decode = await make_side(Phase.PREFILL), await make_side(Phase.DECODE)
    begun, over = asyncio.Event(), asyncio.Event()

    async def slow(stream: Any, called_off: Any) -> Probe:
        del stream, called_off
        begun.set()
        await over.wait()
        return Probe(1e8, 0.0)

    monkeypatch.setattr(prober, "probe_link", slow)
    first = asyncio.create_task(prefill.worker.probe(decode.config.address))
    await begun.wait()
    with pytest.raises(PreconditionError, match="another link"):
        await prefill.worker.probe(decode.config.address)
    over.set()
    assert (await first).bytes_per_s == 1e8


async def test_probe_fails_by_name_when_nobody_is_there(make_side: MakeSide) -> None:
    prefill = await make_side(Phase.PREFILL)
    with pytest.raises(UnavailableError, match="cannot connect"):
        await prefill.worker.probe(f"127.0.0.1:{free_port()}")


@pytest.mark.parametrize("bulk", list(Bulk))
async def test_link_is_probed_by_itself_when_transfers_were_too_small_to_tell(
    make_side: MakeSide,
    layout: KvLayout,
    make_cache: MakeCache,
    monkeypatch: pytest.MonkeyPatch,
    bulk: Bulk,
) -> None:
    """Kilobytes tell no rate, and gRPC shows no socket to count on."""
    monkeypatch.setattr(prober, "_CHECK_INTERVAL_S", 0.01)
    prefill, decode = await make_side(Phase.PREFILL, bulk=bulk), await make_side(Phase.DECODE)
    assert await prefill.worker.links() == ()
    await transfer(prefill, decode, 1, make_cache(layout, 8))
    async with asyncio.timeout(WAIT_S):
        while not (links := await prefill.worker.links()):  # noqa: ASYNC110 - a task measures
            await asyncio.sleep(0.01)
    assert [(link.peer_address, link.method) for link in links] == [
        (decode.config.address, LinkMethod.PROBE)
    ]


async def transfer(prefill: Any, decode: Any, room: int, cache: np.ndarray) -> None:
    """Move a cache as it is."""
    await prefill.worker.announce(room, WireMode.RAW16)
    decode.engine.expect(room, cache.shape[2])
    decode.client.reserve(room, prefill.config.address, cache.shape[2])
    await prefill.engine.wait_reserved(room)

    def send() -> None:
        prefill.client.send_pages(room, 0, cache)
        prefill.client.send_aux(room, b"aux")
        prefill.client.finish(room)

    await asyncio.to_thread(send)
    assert await decode.engine.wait_ended(room) == "committed"
