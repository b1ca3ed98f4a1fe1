"""Bad frames, dead sidecars and slow readers: one room fails, the rest goes on."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Any

import numpy as np
import pytest
from identities import SERVER_NAME, bulk_context

from thunderserve.core.errors import TransferError
from thunderserve.core.plan import Phase
from thunderserve.core.request import WireMode
from thunderserve.kvlink.bootstrap import serve
from thunderserve.kvlink.protocol import Block, FrameKind, encode_header, make_frame

Pair = tuple[Any, Any]
MakeCache = Callable[..., np.ndarray]
MakeSide = Callable[..., Awaitable[Any]]


def pages_frame(layout: Any, room: int, cache: np.ndarray, fingerprint: int = 0) -> bytearray:
    """One correct frame with the first page of the first layer."""
    payload = np.ascontiguousarray(cache[:1, :, :1]).tobytes()
    header = make_frame(
        FrameKind.PAGES,
        room,
        fingerprint or layout.fingerprint,
        payload,
        wire_mode=WireMode.RAW16,
        block=Block(0, 1, 0, 2, 0, 1),
    )
    return bytearray(encode_header(header) + payload)


async def offer(prefill: Any, decode: Any, room: int, page_count: int) -> None:
    await prefill.worker.announce(room, WireMode.RAW16)
    decode.engine.expect(room, page_count)
    decode.client.reserve(room, prefill.config.address, page_count)
    await prefill.engine.wait_reserved(room)


async def transfer(prefill: Any, decode: Any, room: int, cache: np.ndarray) -> None:
    """A whole good transfer; fails the test unless it arrives."""
    await offer(prefill, decode, room, cache.shape[2])

    def send() -> None:
        prefill.client.send_pages(room, 0, cache)
        prefill.client.send_aux(room, b"aux")
        prefill.client.finish(room)

    await asyncio.to_thread(send)
    assert await decode.engine.wait_ended(room) == "committed"
    assert np.array_equal(decode.engine.caches[room], cache)


async def push(address: str, data: bytes, *, hang_up: bool = False) -> bytes:
    """Send bytes as a certified peer; read until the sidecar closes, or close before it does."""
    host, _, port = address.rpartition(":")
    reader, writer = await asyncio.open_connection(
        host, int(port), ssl=bulk_context(), server_hostname=SERVER_NAME
    )
    writer.write(data)
    await writer.drain()
    answer = b""
    with contextlib.suppress(ConnectionResetError):
        answer = b"" if hang_up else await reader.read()
    writer.close()
    with contextlib.suppress(ConnectionResetError, BrokenPipeError):
        await writer.wait_closed()
    return answer


@pytest.mark.parametrize(
    ("damage", "word"),
    [
        ("payload", "changed"),
        ("fingerprint", "fingerprint"),
        ("truncated", "closed"),
        ("end", "missing"),
    ],
)
async def test_room_fails_alone_when_its_frame_is_bad(
    pair: Pair, layout: Any, make_cache: MakeCache, damage: str, word: str
) -> None:
    """Both engines hear the reason, the sidecar lives, other rooms arrive."""
    prefill, decode = pair
    cache = make_cache(layout, 6)
    await offer(prefill, decode, 5, 6)
    frame = pages_frame(layout, 5, cache, fingerprint=99 if damage == "fingerprint" else 0)
    if damage == "payload":
        frame[-1] ^= 1
    elif damage == "truncated":
        del frame[-10:]
    elif damage == "end":
        frame += encode_header(make_frame(FrameKind.END, 5, layout.fingerprint))

    await push(decode.config.address, bytes(frame), hang_up=damage == "truncated")

    assert word in await decode.engine.wait_ended(5)
    assert word in await prefill.engine.wait_ended(5)
    await transfer(prefill, decode, 6, cache)


@pytest.mark.parametrize("data", [b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" * 9, b"\0" * 5000, b"TSKV"])
async def test_sidecar_lives_when_strangers_speak(
    pair: Pair, layout: Any, make_cache: MakeCache, data: bytes
) -> None:
    """Whatever is not a frame ends its own connection and nothing else."""
    prefill, decode = pair

    assert await push(decode.config.address, data, hang_up=data == b"TSKV") == b""

    await transfer(prefill, decode, 6, make_cache(layout, 6))


async def test_frame_is_refused_when_nobody_reserved_its_room(
    pair: Pair, layout: Any, make_cache: MakeCache
) -> None:
    """Frames never open rooms."""
    prefill, decode = pair
    cache = make_cache(layout, 6)

    assert await push(decode.config.address, bytes(pages_frame(layout, 404, cache))) == b""

    await transfer(prefill, decode, 6, cache)


async def test_engine_hears_and_returns_when_its_sidecar_restarts(
    make_side: MakeSide, layout: Any, make_cache: MakeCache
) -> None:
    """Open rooms fail at once; the client registers again with the next sidecar."""
    prefill, decode = await make_side(Phase.PREFILL), await make_side(Phase.DECODE)
    await offer(prefill, decode, 5, 6)

    decode.stopping.set()
    await decode.task
    assert "went away" in await decode.engine.wait_ended(5)
    decode.stopping.clear()
    decode.task = asyncio.create_task(serve(decode.config, decode.stopping))

    for room in range(100, 300):  # until the client has found the new one
        decode.engine.expect(room, 6)
        with contextlib.suppress(TransferError):
            decode.client.reserve(room, prefill.config.address, 6)
            while not {room} & (prefill.engine.page_counts.keys() | decode.engine.outcome.keys()):  # noqa: ASYNC110 - a thread tells
                await asyncio.sleep(0.02)
        if room in prefill.engine.page_counts:
            break
        await asyncio.sleep(0.02)
    await transfer(prefill, decode, 6, make_cache(layout, 6))


async def test_sender_waits_when_the_receiving_engine_is_slow(
    pair: Pair, layout: Any, make_cache: MakeCache
) -> None:
    """A slow decode engine holds the prefill engine back instead of filling memory."""
    prefill, decode = pair
    cache = make_cache(layout, 4096)  # 24 MiB: more than all buffers and sockets together
    await offer(prefill, decode, 5, 4096)
    gate, write = asyncio.Event(), decode.engine.on_pages
    loop = asyncio.get_running_loop()

    def wait_then_write(*args: Any) -> None:
        asyncio.run_coroutine_threadsafe(gate.wait(), loop).result()
        write(*args)

    decode.engine.on_pages = wait_then_write
    sending = asyncio.create_task(asyncio.to_thread(prefill.client.send_pages, 5, 0, cache))
    done, _ = await asyncio.wait({sending}, timeout=0.5)
    assert not done

    gate.set()
    await sending
    await asyncio.to_thread(prefill.client.send_aux, 5, b"aux")
    await asyncio.to_thread(prefill.client.finish, 5)
    assert await decode.engine.wait_ended(5) == "committed"
    assert np.array_equal(decode.engine.caches[5], cache)
