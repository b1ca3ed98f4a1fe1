"""What a peer or an engine says never decides how much memory, or whose rooms, it costs."""

from __future__ import annotations

import asyncio
import tracemalloc
from typing import TYPE_CHECKING

import grpc
import pytest

from thunderserve.api.kvlink.v1 import kvlink_pb2, kvlink_pb2_grpc
from thunderserve.core.kv import KvLayout
from thunderserve.core.request import WireMode
from thunderserve.kvlink.protocol import (
    PROTOCOL_VERSION,
    Block,
    FrameError,
    FrameKind,
    IncompleteTransferError,
    Transfer,
    make_frame,
)
from thunderserve.kvlink.protocol.message import pack_json, unpack_json
from thunderserve.kvlink.rooms import Rooms
from thunderserve.kvlink.session import session_from_hello
from thunderserve.wire.kvlink import layout_to_proto

if TYPE_CHECKING:
    from fault_arena import Arena

LAYOUT = KvLayout("m", 1, 1, 16, 4, "bfloat16")
GOOD_LAYOUT = {"model_fingerprint": "m", "layer_count": 2, "kv_head_count": 2, "head_dim": 16}
GOOD_LAYOUT |= {"page_size_tokens": 4, "dtype": "bfloat16"}
GOOD_PART = {"first_layer": 0, "layer_count": 2, "first_head": 0, "head_count": 2}


def test_books_stay_small_when_a_peer_reserves_two_billion_pages() -> None:
    """Pages that never come cost nothing, and are still missed."""
    transfer = Transfer(1, LAYOUT, 2**31 - 1, WireMode.RAW16)
    block = Block(0, 1, 0, 1, 0, 1)
    transfer.accept(make_frame(FrameKind.PAGES, 1, LAYOUT.fingerprint, block=block), 1.0)

    tracemalloc.start()
    with pytest.raises(IncompleteTransferError, match="2147483646 of 2147483647 pages"):
        transfer.check_complete()
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert peak_bytes < 100_000


def test_rooms_are_forgotten_when_a_peer_ends_more_than_anybody_opened() -> None:
    """The oldest go first; a room that is open stays."""
    rooms = Rooms(default_mode=WireMode.INT4, max_rooms=4, open_limit_s=9, forget_after_s=60)
    rooms.announce(1, WireMode.INT4, 0.0)

    for number in range(2, 50_000):
        rooms.bury(number, "aborted by the other side", 1.0)

    assert rooms.find(1) is not None
    assert rooms.find(2) is None
    assert rooms.find(49_999) is not None
    assert len(rooms._rooms) < 20_000


@pytest.mark.parametrize(
    ("layout", "part"),
    [
        ({"layer_count": 2.5}, {}),
        ({"head_dim": float("inf")}, {}),
        ({"kv_head_count": True}, {}),
        ({"layer_count": 10**9}, {}),
        ({"layer_count": 60_000, "kv_head_count": 60_000}, {}),
        ({}, {"head_count": 10**9}),
        ({}, {"first_layer": 0.5}),
        ({}, {"rank_count": 1e300}),
    ],
)
def test_engine_is_refused_when_its_numbers_cannot_be_counted(
    layout: dict[str, object], part: dict[str, object]
) -> None:
    """JSON has other numbers than whole ones, and ones that no memory holds."""
    fields = {"layout": GOOD_LAYOUT | layout, "part": GOOD_PART | part}
    fields |= {"phase": "DECODE", "engine": "e"}

    with pytest.raises(FrameError):
        session_from_hello(unpack_json(pack_json(fields)), None, None)  # type: ignore[arg-type]  # unused


@pytest.mark.parametrize("data", [b"[" * 60_000, b'{"a":' * 9_000, b"\xff", b"1" * 5_000, b"[]"])
def test_message_is_refused_when_it_is_no_json_object(data: bytes) -> None:
    """Nesting, encodings and digits that make parsers give up are refused like the rest."""
    with pytest.raises(FrameError):
        unpack_json(data)


@pytest.mark.asyncio(loop_scope="module")
async def test_other_rooms_go_on_when_a_peer_aborts_with_a_long_reason(arena: Arena) -> None:
    """The engine's own connection holds short messages; the reason is cut to one."""
    victim = await arena.offer(WireMode.RAW16)
    beside = await arena.offer(WireMode.RAW16)
    request = kvlink_pb2.AbortTransferRequest(room=victim, reason="\0" * 3_000_000)

    async with grpc.aio.insecure_channel(f"unix:{arena.prefill.config.peer_socket}") as channel:
        await kvlink_pb2_grpc.PeerServiceStub(channel).AbortTransfer(request)

    assert len(await arena.prefill.engine.wait_ended(victim)) < 1000
    await asyncio.to_thread(arena._send, beside)
    assert (await arena.outcome(beside, WireMode.RAW16)).decode == "committed"


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize(
    ("fields", "word"),
    [
        *(
            ({"peer_address": address}, "host:port")
            for address in ("127.0.0.1:99999", "127.0.0.1:-1", "127.0.0.1:x", "127.0.0.1:", ":1")
        ),
        ({"peer_address": "unix:/run/kvlink/local"}, "host:port"),
        ({"peer_address": "unix:///run/kvlink:1"}, "host:port"),
        ({"peer_address": "\0:1"}, "host:port"),
        ({"peer_address": "h" * 1_000_000 + ":1"}, "host:port"),
        ({"page_count": 0}, "at least 1"),
        ({"page_count": -1}, "at least 1"),
        ({"room": 0}, "room 0"),
        ({"room": 2**64 - 1}, "is not in"),
        ({"layout": kvlink_pb2.KvLayout()}, "must be > 0"),
    ],
)
async def test_reservation_is_refused_and_takes_no_place_when_a_field_is_wrong(
    arena: Arena, fields: dict[str, object], word: str
) -> None:
    """More of them than there are rooms: all are there afterwards."""
    async with grpc.aio.insecure_channel(f"unix:{arena.prefill.config.peer_socket}") as channel:
        for _ in range(arena.prefill.config.max_rooms + 1):
            good = {
                "protocol_version": PROTOCOL_VERSION,
                "room": next(arena.rooms),
                "layout": layout_to_proto(arena.layout),
                "page_count": arena.cache.shape[2],
                "peer_address": arena.decode.config.address,
            }
            request = kvlink_pb2.ReserveTransferRequest(**good | fields)
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await kvlink_pb2_grpc.PeerServiceStub(channel).ReserveTransfer(request)
            assert word in str(refused.value.details())
    assert (await arena.transfer(WireMode.RAW16)).exact


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("version", [0, PROTOCOL_VERSION - 1, PROTOCOL_VERSION + 1, 2**31 - 1])
async def test_reservation_is_refused_when_the_peer_speaks_another_version(
    arena: Arena, version: int
) -> None:
    """K4: an old or a new release is told what both speak."""
    request = kvlink_pb2.ReserveTransferRequest(protocol_version=version, room=next(arena.rooms))

    async with grpc.aio.insecure_channel(f"unix:{arena.prefill.config.peer_socket}") as channel:
        with pytest.raises(grpc.aio.AioRpcError, match="same release on both hosts"):
            await kvlink_pb2_grpc.PeerServiceStub(channel).ReserveTransfer(request)

    assert (await arena.transfer(WireMode.RAW16)).exact
