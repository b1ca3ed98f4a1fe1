"""Several rooms on one link: a short one does not wait for a long one."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Awaitable, Callable
from typing import Any

import numpy as np
import torch
from gate import Gate

from thunderserve.core.kv import KvLayout
from thunderserve.core.plan import Phase
from thunderserve.core.request import WireMode
from thunderserve.kvlink.sglang_plugin.memory import AuxMemory, PageMemory
from thunderserve.kvlink.sglang_plugin.senders import Chunk, Senders

MakeSide = Callable[..., Awaitable[Any]]
LAYOUT = KvLayout("fair", 3, 2, 64, 64, "bfloat16")  # 96 KiB a page
LONG, SHORT = 1, 3
LONG_PAGES = 400  # more than the kernel's buffers hold


async def test_short_room_ends_first_when_a_long_one_is_under_way(make_side: MakeSide) -> None:
    """Its blocks pass those of the long one in the engine and in the sidecar."""
    gate, port = await gate_before(own_port := free_port())
    settings = {
        "address": f"127.0.0.1:{own_port}",
        "advertised_address": f"127.0.0.1:{port}",
        "max_frame_bytes": 256 * 1024,
    }
    decode = await make_side(Phase.DECODE, LAYOUT, **settings)
    prefill = await make_side(Phase.PREFILL, LAYOUT, max_frame_bytes=256 * 1024)
    pool = [torch.ones((LONG_PAGES, 64, 2, 64), dtype=torch.int16) for _ in range(6)]
    failed: list[str] = []
    memory = PageMemory(LAYOUT, LAYOUT.whole, pool)
    senders = Senders(
        prefill.client, memory, AuxMemory((), ()), lambda _room, reason: failed.append(reason)
    )

    async def offer(room: int, page_count: int) -> None:
        for side in (prefill, decode):
            await side.worker.announce(room, WireMode.RAW16)
        decode.engine.expect(room, page_count)
        decode.client.reserve(room, prefill.config.address, page_count)
        await prefill.engine.wait_reserved(room)
        senders.put(Chunk(room, 0, np.arange(page_count, dtype=np.int32), 0))

    try:
        with gate.closed():
            await offer(LONG, LONG_PAGES)
            # Its first blocks fill its share of the slots, and stay there.
            await asyncio.to_thread(wait_until, lambda: not prefill.client.has_slot(LONG))
            await offer(SHORT, 2)

        assert await decode.engine.wait_ended(SHORT) == "committed"
        assert LONG not in decode.engine.outcome
        assert await decode.engine.wait_ended(LONG) == "committed"
        assert not failed
        assert decode.engine.caches[LONG].all()
    finally:
        await asyncio.to_thread(prefill.client.close)
        senders.close()
        gate.close()


async def gate_before(upstream_port: int) -> tuple[Gate, int]:
    """A gate and the port that it listens on."""
    gate, port = Gate(upstream_port), free_port()
    await gate.listen(port)
    return gate, port


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_until(holds: Callable[[], bool]) -> None:
    """Fails the test when it does not come true."""
    end_s = time.monotonic() + 10
    while not holds():
        assert time.monotonic() < end_s
        time.sleep(0.005)
