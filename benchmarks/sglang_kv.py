"""Captures the KV caches that SGLang makes of held-out prompts, as a decode side receives them.

    .venv/bin/python benchmarks/sglang_kv.py FILE [--samples N]

SGLang serves the demo model as a prefill engine; its pages go through two sidecars as `raw16` to an
engine that only writes them down. FILE is for `codec_schemes.py --captured FILE`: safetensors with
`cache` (samples, layers, 2, tokens, kv heads, d) bfloat16.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import re
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from safetensors.torch import save_file

from thunderserve.cli.bench.quality import NEXT_TOKENS, PROMPT_TOKENS
from thunderserve.core.errors import TransferError
from thunderserve.core.identity import Role
from thunderserve.core.kv import KvLayout
from thunderserve.core.plan import Phase
from thunderserve.core.request import PrefillLeg, SamplingParams, TransferTicket, WireMode
from thunderserve.demo_model import model_path
from thunderserve.demo_model.reading import windows
from thunderserve.engine.sglang.engine import SglangEngine
from thunderserve.engine.sglang.options import SglangOptions
from thunderserve.kvlink.bootstrap import serve
from thunderserve.kvlink.config import KvlinkConfig
from thunderserve.kvlink.engine_client import EngineClient
from thunderserve.runtime.identity.pki import issue_local

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

FIRST_PORT = 47310
LAYOUT = KvLayout("unknown", 8, 2, 64, 1, "bfloat16")


class Recorder:
    """A decode engine that keeps the pages of one room at a time."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._ended: asyncio.Future[str] = loop.create_future()
        self._cache = np.empty(0, np.uint16)

    def expect(self, tokens: int) -> None:
        """Make memory for a room."""
        self._cache = np.zeros(LAYOUT.block_shape(LAYOUT.layer_count, tokens), np.uint16)
        self._ended = self._loop.create_future()

    async def cache(self) -> np.ndarray:
        """(layers, 2, tokens, 1, heads, d), when all of it has come."""
        if reason := await self._ended:
            raise TransferError(reason)
        return self._cache

    def on_reserved(self, room: int, page_count: int) -> None:
        """Of a prefill engine alone."""

    def on_pages(self, room: int, block: Any, values: np.ndarray) -> None:
        """Keep them."""
        del room
        layers = slice(block.first_layer, block.first_layer + block.layer_count)
        pages = slice(block.first_page, block.first_page + block.page_count)
        self._cache[layers, :, pages] = values

    def on_aux(self, room: int, aux: bytes) -> None:
        """SGLang's own data for its decode side."""

    def on_committed(self, room: int) -> None:
        """All is there."""
        self._end(room, "")

    def on_failed(self, room: int, reason: str) -> None:
        """It will not come."""
        self._end(room, reason)

    def _end(self, room: int, reason: str) -> None:
        del room
        ended = self._ended
        self._loop.call_soon_threadsafe(lambda: ended.done() or ended.set_result(reason))


def main() -> None:
    """Command-line entry."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("file", type=Path)
    parser.add_argument("--samples", type=int, default=64)
    arguments = parser.parse_args()
    prompts = windows(PROMPT_TOKENS + NEXT_TOKENS, arguments.samples)[:, :PROMPT_TOKENS]
    caches = asyncio.run(capture(prompts.tolist()))
    cache = torch.from_numpy(np.stack(caches)).view(torch.bfloat16)
    save_file({"cache": cache.contiguous()}, arguments.file)
    print(f"{tuple(cache.shape)} in {arguments.file}")


async def capture(prompts: list[list[int]]) -> list[np.ndarray]:
    """(layers, 2, tokens, heads, d) of each prompt."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        issue_local(folder / "pki", Role.KVLINK, ("prefill", "decode"), datetime.now(UTC))
        async with (
            sidecar(folder / "prefill", FIRST_PORT) as prefill,
            sidecar(folder / "decode", FIRST_PORT + 1) as decode,
        ):
            options = SglangOptions(
                model_path=model_path(),
                kvlink_engine_socket=str(prefill.engine_socket),
                max_total_tokens=4096,
                max_running_requests=1,
            )
            engine = SglangEngine(options)
            await engine.start(Phase.PREFILL)
            try:
                return await receive(engine, prefill.address, decode.engine_socket, prompts)
            finally:
                await engine.stop()


async def receive(
    engine: SglangEngine, address: str, socket: Path, prompts: list[list[int]]
) -> list[np.ndarray]:
    """One room after the other; the first, refused, tells the model's fingerprint."""
    recorder = Recorder(asyncio.get_running_loop())
    fingerprint = await refused_fingerprint(recorder, address, socket)
    layout = KvLayout(fingerprint, *[getattr(LAYOUT, n) for n in LAYOUT.__slots__[1:6]])
    client = EngineClient(socket, layout, Phase.DECODE, recorder)
    await asyncio.to_thread(client.start)
    caches = []
    for room, prompt in enumerate(prompts, start=2):
        recorder.expect(len(prompt))
        client.reserve(room, address, len(prompt))
        ticket = TransferTicket(room, address, WireMode.RAW16)
        leg = PrefillLeg(f"r{room}", tuple(prompt), SamplingParams(), ticket)
        async with contextlib.aclosing(engine.prefill(leg)) as tokens:
            async for _ in tokens:
                pass
        caches.append((await recorder.cache()).squeeze(3).copy())
    await asyncio.to_thread(client.close)
    return caches


async def refused_fingerprint(recorder: Recorder, address: str, socket: Path) -> str:
    """What the prefill side's sidecar says its engine's model is."""
    client = EngineClient(socket, LAYOUT, Phase.DECODE, recorder)
    await asyncio.to_thread(client.start)
    recorder.expect(1)
    client.reserve(1, address, 1)
    try:
        await recorder.cache()
    except TransferError as refusal:
        found = re.search(r"model_fingerprint is '([^']*)' here", str(refusal))
        if found is None:
            raise
        return found[1]
    finally:
        await asyncio.to_thread(client.close)
    raise TransferError("a model that is not known was taken")


@contextlib.asynccontextmanager
async def sidecar(folder: Path, port: int) -> AsyncIterator[KvlinkConfig]:
    """One side's, until the block ends."""
    config = KvlinkConfig(
        address=f"127.0.0.1:{port}",
        local_address=f"unix:{folder / 'local'}",
        engine_socket=folder / "engine",
        identity=folder.parent / "pki" / folder.name,
        wire_mode=WireMode.RAW16,
    )
    stopping = asyncio.Event()
    serving = asyncio.create_task(serve(config, stopping))
    try:
        yield config
    finally:
        stopping.set()
        await serving


if __name__ == "__main__":
    main()
