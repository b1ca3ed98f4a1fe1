"""An engine that breaks the rules of the engine socket: it loses its connection, nobody else."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from thunderserve.core.errors import TransferError, UnavailableError
from thunderserve.core.plan import Phase
from thunderserve.core.request import WireMode
from thunderserve.kvlink.engine_socket import EngineSocket, connect
from thunderserve.kvlink.protocol import Block
from thunderserve.kvlink.protocol.message import Message, MessageKind, pack_json

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from thunderserve.core.kv import KvLayout

MakeSide = Callable[..., Awaitable[Any]]
MakeCache = Callable[..., np.ndarray]
ROOM = 7
PAGE = Block(0, 1, 0, 2, 0, 1)


@contextlib.asynccontextmanager
async def engine(side: Any, phase: Phase, layout: KvLayout) -> AsyncIterator[EngineSocket]:
    """A connection that registers as an engine and may then say anything."""
    hello = {"layout": asdict(layout), "part": asdict(layout.whole)}
    hello |= {"phase": phase.value, "engine": "bad"}
    connection = await asyncio.to_thread(connect, side.config.engine_socket, hello)
    try:
        yield connection
    finally:
        connection.shut()
        connection.close()


async def offered(make_side: MakeSide, phase: Phase) -> tuple[Any, Any]:
    """A side whose own engine has left, and one of the other phase."""
    side = await make_side(phase, max_frame_bytes=32 * 1024)
    other = Phase.DECODE if phase is Phase.PREFILL else Phase.PREFILL
    peer = await make_side(other, max_frame_bytes=32 * 1024)
    await asyncio.to_thread(side.client.close)
    return side, peer


async def reserve(prefill: Any, decode: Any, told: EngineSocket, room: int = ROOM) -> None:
    """The room is reserved, and the bad prefill engine has been told."""
    for side in (prefill, decode):
        await side.worker.announce(room, WireMode.RAW16)
    decode.engine.expect(room, 2)
    decode.client.reserve(room, prefill.config.address, 2)
    message, _ = await asyncio.to_thread(told.receive)
    assert (message.kind, message.room) == (MessageKind.RESERVED, room)


def wait_until(holds: Callable[[], bool]) -> None:
    """Fails the test when it does not come true."""
    end_s = time.monotonic() + 10
    while not holds():
        assert time.monotonic() < end_s
        time.sleep(0.01)


async def ends(connection: EngineSocket) -> bool:
    """True when the sidecar closes the connection, whatever it says before."""

    def read() -> bool:
        with contextlib.suppress(UnavailableError):
            while True:
                connection.receive()
        return True

    return await asyncio.wait_for(asyncio.to_thread(read), 10)


@pytest.mark.parametrize("slot", [8, 2**32 - 1])
async def test_engine_is_cut_off_when_it_names_a_slot_that_is_not(
    make_side: MakeSide, layout: KvLayout, slot: int
) -> None:
    """The sidecar reads nothing outside of the memory that it made; the room is lost."""
    prefill, decode = await offered(make_side, Phase.PREFILL)
    async with engine(prefill, Phase.PREFILL, layout) as bad:
        await reserve(prefill, decode, bad)

        bad.send(Message(MessageKind.PAGES, ROOM, PAGE, slot))

        assert await ends(bad)
    assert "disconnected" in await decode.engine.wait_ended(ROOM)


async def test_engine_is_cut_off_when_it_gives_a_slot_twice(
    make_side: MakeSide, layout: KvLayout
) -> None:
    """The sidecar would read what the engine writes."""
    prefill, decode = await offered(make_side, Phase.PREFILL)
    async with engine(prefill, Phase.PREFILL, layout) as bad:
        await reserve(prefill, decode, bad)

        for page in range(2):
            bad.send(Message(MessageKind.PAGES, ROOM, Block(0, 1, 0, 2, page, 1), 3))

        assert await ends(bad)
    assert await decode.engine.wait_ended(ROOM)


@pytest.mark.parametrize(
    ("block", "word"),
    [
        (Block(0, 3, 0, 2, 0, 1000), "slots of 32768 bytes"),
        (Block(0, 2**32 - 1, 0, 2**32 - 1, 0, 2**32 - 1), "not of what rank 0 holds"),
        (Block(0, 1, 0, 2, 2, 1), "outside"),
        (Block(3, 1, 0, 2, 0, 1), "not of what rank 0 holds"),
    ],
)
async def test_room_fails_alone_when_its_block_is_not_of_the_cache(
    make_side: MakeSide, layout: KvLayout, block: Block, word: str
) -> None:
    """The slot comes back, and the engine goes on with other rooms."""
    prefill, decode = await offered(make_side, Phase.PREFILL)
    async with engine(prefill, Phase.PREFILL, layout) as bad:
        await reserve(prefill, decode, bad)

        bad.send(Message(MessageKind.PAGES, ROOM, block, 3))

        assert word in await decode.engine.wait_ended(ROOM)
        told = {(await asyncio.to_thread(bad.receive))[0].kind for _ in range(2)}
        assert told == {MessageKind.FREE, MessageKind.FAILED}
        await reserve(prefill, decode, bad, ROOM + 1)


@pytest.mark.parametrize(
    "message",
    [
        Message(MessageKind.FREE, slot=0),
        Message(MessageKind.FREE, slot=2**32 - 1),
        Message(MessageKind.PAGES, ROOM, PAGE, 0),
        Message(MessageKind.FINISH, ROOM),
        Message(MessageKind.HELLO),
    ],
)
async def test_decode_engine_is_cut_off_when_it_says_what_it_must_not(
    make_side: MakeSide, layout: KvLayout, message: Message
) -> None:
    """A slot that it was not given comes back from nowhere; pages come from prefill engines."""
    decode, _ = await offered(make_side, Phase.DECODE)
    async with engine(decode, Phase.DECODE, layout) as bad:
        bad.send(message)

        assert await ends(bad)
    async with engine(decode, Phase.DECODE, layout):  # the sidecar takes the next one
        pass


async def test_room_fails_when_its_engine_says_the_same_twice(
    make_side: MakeSide, layout: KvLayout
) -> None:
    """Of what is said once: nothing of it piles up in the sidecar."""
    prefill, decode = await offered(make_side, Phase.PREFILL)
    async with engine(prefill, Phase.PREFILL, layout) as bad:
        for number, kind in enumerate((MessageKind.AUX, MessageKind.COMPUTED, MessageKind.FINISH)):
            room = ROOM + number
            await reserve(prefill, decode, bad, room)

            bad.send(Message(kind, room))
            bad.send(Message(kind, room))

            assert "committed" not in await decode.engine.wait_ended(room)
            await asyncio.to_thread(bad.receive)


async def test_rooms_end_when_a_decode_engine_keeps_all_slots(
    make_side: MakeSide, layout: KvLayout, make_cache: MakeCache
) -> None:
    """It gives no slot back: the prefill side waits, and hears of it when the engine dies."""
    decode, prefill = await offered(make_side, Phase.DECODE)
    cache = make_cache(layout, 400)
    async with engine(decode, Phase.DECODE, layout) as bad:
        for side in (prefill, decode):
            await side.worker.announce(ROOM, WireMode.RAW16)
        wanted = {"peer_address": prefill.config.address, "page_count": 400}
        bad.send(Message(MessageKind.RESERVE, ROOM), pack_json(wanted))
        assert await prefill.engine.wait_reserved(ROOM) == 400
        sending = asyncio.create_task(asyncio.to_thread(prefill.client.send_pages, ROOM, 0, cache))

        slots = {(await asyncio.to_thread(bad.receive))[0].slot for _ in range(8)}

        assert slots == set(range(8))
    assert "disconnected" in await prefill.engine.wait_ended(ROOM)
    with contextlib.suppress(TransferError):
        await asyncio.wait_for(sending, 10)  # what it still sends is thrown away


async def test_sidecar_keeps_no_memory_when_engines_come_and_go(
    make_side: MakeSide, layout: KvLayout
) -> None:
    """Mappings and descriptors are back at their baseline."""
    prefill, _ = await offered(make_side, Phase.PREFILL)

    def mappings() -> int:
        with open("/proc/self/maps") as maps:  # noqa: PTH123 - a file of the kernel's
            return sum("kvlink-slots" in line for line in maps)

    before = mappings()
    for _ in range(20):
        async with engine(prefill, Phase.PREFILL, layout) as one:
            assert mappings() > before
            one.send(Message(MessageKind.PAGES, ROOM, PAGE, 0))
            assert (await asyncio.to_thread(one.receive))[0].kind is MessageKind.FREE
        del one
    await asyncio.to_thread(wait_until, lambda: mappings() == before)
