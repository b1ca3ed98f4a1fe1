"""How much of a transfer the real SGLang's prefill hides, and what a change of its phase takes.

    .venv/bin/python benchmarks/sglang_hiding.py [--link 1gbit] [--chunk 2048] [-o json]

SGLang serves the demo model (8 layers) as a prefill engine; its cache goes over a shaped loopback
to an engine that takes it. A third engine sends as many ready values over the same link: what a
transfer takes that nothing hides. `--link` needs root, for a network namespace of its own.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from engine_path import ADDRESS, SHAPE, certify, sidecar
from sglang_kv import LAYOUT, Recorder, refused_fingerprint

from thunderserve.core.kv import KvLayout
from thunderserve.core.plan import Phase
from thunderserve.core.request import (
    PrefillLeg,
    SamplingParams,
    TransferReport,
    TransferTicket,
    WireMode,
)
from thunderserve.demo_model import model_path
from thunderserve.demo_model.reading import windows
from thunderserve.engine.sglang.engine import SglangEngine
from thunderserve.engine.sglang.options import SglangOptions
from thunderserve.kvlink.engine_client import EngineClient
from thunderserve.kvlink.local_client import LocalClient

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import numpy as np

FIRST_PORT = 17500
NAMES = ("prefill", "decode", "alone")
LENGTHS, ROUNDS, SWITCHES = (480, 1920), 5, 4


class Sender:
    """A prefill engine whose values are ready; `EngineEvents` of its client."""

    def __init__(self, socket_path: Path, layout: KvLayout) -> None:
        self._loop = asyncio.get_running_loop()
        self._reserved = asyncio.Event()
        self.client = EngineClient(socket_path, layout, Phase.PREFILL, self)

    def on_reserved(self, room: int, page_count: int) -> None:
        """See `EngineEvents`."""
        del room, page_count
        self._loop.call_soon_threadsafe(self._reserved.set)

    def on_pages(self, room: int, block: object, values: object) -> None:
        """See `EngineEvents`; of a decode engine alone."""

    def on_aux(self, room: int, aux: bytes) -> None:
        """See `EngineEvents`; as above."""

    def on_committed(self, room: int) -> None:
        """See `EngineEvents`; the sidecar's report is waited for."""

    def on_failed(self, room: int, reason: str) -> None:
        """See `EngineEvents`; as above."""

    async def send(self, room: int, values: np.ndarray) -> None:
        """All of it at once, computed before."""
        await self._reserved.wait()
        self._reserved.clear()
        self.client.computed(room)
        await asyncio.to_thread(self.client.send_pages, room, 0, values)
        self.client.send_aux(room, b"")
        self.client.finish(room)


class Bench:
    """Engines and sidecars, ready."""

    def __init__(self, folder: Path, engine: SglangEngine) -> None:
        self._folder, self._engine = folder, engine
        self._recorder = Recorder(asyncio.get_running_loop())
        self._workers = {name: LocalClient(f"unix:{folder / name}.local") for name in NAMES}
        self._room = 1

    async def start(self) -> None:
        """Register the engines beside SGLang."""
        address, decode = ADDRESS.format(FIRST_PORT), self._folder / "decode"
        model = await refused_fingerprint(self._recorder, address, decode)
        layout = KvLayout(model, *[getattr(LAYOUT, name) for name in LAYOUT.__slots__[1:6]])
        self._layout = layout
        self._decode = EngineClient(decode, layout, Phase.DECODE, self._recorder)
        self._sender = Sender(self._folder / "alone", layout)
        for client in (self._decode, self._sender.client):
            await asyncio.to_thread(client.start)

    async def close(self) -> None:
        """Let them go."""
        for client in (self._decode, self._sender.client):
            await asyncio.to_thread(client.close)
        for worker in self._workers.values():
            await worker.close()

    async def alone(self, tokens: int, mode: WireMode) -> TransferReport:
        """A transfer of the cache that came last, with nothing beside it."""
        values = (await self._recorder.cache()).copy()
        room = await self._reserve(tokens, mode, "alone")
        await self._sender.send(room, values)
        return await self._ended(room, "alone")

    async def hidden(self, prompt: list[int], mode: WireMode) -> tuple[TransferReport, float]:
        """A transfer beside its prefill, and the seconds to the first token."""
        room = await self._reserve(len(prompt), mode, "prefill")
        ticket = TransferTicket(room, ADDRESS.format(FIRST_PORT), mode)
        leg = PrefillLeg(f"r{room}", tuple(prompt), SamplingParams(), ticket)
        start_s, first_s = time.monotonic(), 0.0
        async with contextlib.aclosing(self._engine.prefill(leg)) as tokens:
            async for _ in tokens:
                first_s = first_s or time.monotonic()
        return await self._ended(room, "prefill"), first_s - start_s

    async def switch(self) -> list[float]:
        """Seconds of changes of SGLang's phase, there and back."""
        took = []
        for number in range(SWITCHES):
            start_s = time.monotonic()
            await self._engine.switch((Phase.DECODE, Phase.PREFILL)[number % 2])
            took.append(time.monotonic() - start_s)
        return took

    async def _reserve(self, tokens: int, mode: WireMode, sender: str) -> int:
        self._room += 1
        self._recorder.expect(tokens)
        await self._workers[sender].announce(self._room, mode)
        peer = ADDRESS.format(FIRST_PORT + 2 * NAMES.index(sender))
        self._decode.reserve(self._room, peer, tokens)
        return self._room

    async def _ended(self, room: int, sender: str) -> TransferReport:
        await self._recorder.cache()
        return await self._workers[sender].report(room)


@contextlib.asynccontextmanager
async def bench(chunk_tokens: int) -> AsyncIterator[Bench]:
    """Everything started; ended with the block."""
    async with contextlib.AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        certify([folder / f"{name}.identity" for name in NAMES])
        for number, name in enumerate(NAMES):
            command = sidecar(folder / name, FIRST_PORT + 2 * number, "auto")
            process = await asyncio.create_subprocess_exec(*command)
            stack.push_async_callback(process.wait)
            stack.callback(process.terminate)
        options = SglangOptions(
            model_path=model_path(),
            kvlink_engine_socket=str(folder / "prefill"),
            max_total_tokens=4096,
            max_running_requests=1,
            chunked_prefill_tokens=chunk_tokens,
        )
        engine = SglangEngine(options)
        await engine.start(Phase.PREFILL)
        stack.push_async_callback(engine.stop)
        running = Bench(folder, engine)
        await running.start()
        stack.push_async_callback(running.close)
        yield running


async def measure(chunk_tokens: int) -> dict[str, float]:
    """Medians."""
    figures: dict[str, float] = {}
    async with bench(chunk_tokens) as running:
        for mode in (WireMode.RAW16, WireMode.INT4):
            for length in LENGTHS:
                prompts = windows(length, ROUNDS + 1).tolist()
                beside = [await running.hidden(prompt, mode) for prompt in prompts][1:]
                alone = [await running.alone(length, mode) for _ in range(ROUNDS)]
                exposed_s = statistics.median(report.exposed_s for report, _ in beside)
                alone_s = statistics.median(report.exposed_s for report in alone)
                name = f"{mode.value}_{length}"
                figures |= {
                    f"{name}_prefill_ms": 1e3 * statistics.median(first_s for _, first_s in beside),
                    f"{name}_alone_ms": 1e3 * alone_s,
                    f"{name}_exposed_ms": 1e3 * exposed_s,
                    f"{name}_hidden_ratio": 1 - exposed_s / alone_s,
                    f"{name}_hidden_bytes_ratio": statistics.median(
                        report.hidden_ratio for report, _ in beside
                    ),
                }
        figures["switch_s_worst"] = max(switched := await running.switch())
        figures["switch_s"] = statistics.median(switched)
    return figures


def main() -> None:
    """Command-line entry."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--link", help="rate of the shaped loopback, as tc writes it: 1gbit")
    parser.add_argument("--chunk", type=int, default=2048, help="tokens that a pass computes")
    parser.add_argument("-o", "--output", choices=["table", "json"], default="table")
    arguments = parser.parse_args()
    if arguments.link and "SHAPED" not in os.environ:
        shape = f'{SHAPE.format(arguments.link)} && SHAPED=1 exec "$@"'
        command = ["unshare", "-n", "sh", "-c", shape, "sh", sys.executable, *sys.argv]
        sys.exit(subprocess.run(command, check=False).returncode)
    figures = asyncio.run(measure(arguments.chunk))
    if arguments.output == "json":
        print(json.dumps(figures))
        return
    for name, value in figures.items():
        print(f"{name:28} {value:9.3f}")


if __name__ == "__main__":
    main()
