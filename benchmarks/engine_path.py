"""From one engine's pool to another's through two sidecars: how fast, and a short prompt's turn.

    .venv/bin/python benchmarks/engine_path.py [--link 1gbit] [--mode int4] [-o json]

Four processes: an engine that gathers pages out of a pool (the SGLang plugin's own code, without
SGLang), its sidecar, the other sidecar, and an engine that scatters them into its pool. `--link`
shapes the loopback of a network namespace made for this run, which takes root.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import multiprocessing
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from thunderserve.core.identity import Identity, Role
from thunderserve.core.kv import KvLayout
from thunderserve.core.plan import Phase
from thunderserve.kvlink.codec.float16 import from_float32
from thunderserve.kvlink.engine_client import EngineClient
from thunderserve.kvlink.sglang_plugin.memory import AuxMemory, PageMemory
from thunderserve.kvlink.sglang_plugin.senders import Chunk, Senders
from thunderserve.runtime.identity.pki import Authority, Validity

if TYPE_CHECKING:
    from collections.abc import Iterator

LAYOUT = KvLayout("path", 32, 8, 128, 16, "bfloat16")  # 2 MiB a page of 16 tokens
PAGES, LONG_PAGES, SHORT_PAGES = 128, 256, 4
ROUNDS, SHORTS = 7, 9
SHAPE = "ip link set lo up && tc qdisc add dev lo root tbf rate {} burst 512kb latency 50ms"
ADDRESS = "127.0.0.1:{}"


class Waiting:
    """What the sidecar told of rooms, and when."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._told: dict[tuple[str, int], float] = {}

    def tell(self, what: str, room: int) -> None:
        """Note that something happened."""
        with self._changed:
            self._told[what, room] = time.monotonic()
            self._changed.notify_all()

    def wait(self, what: str, room: int) -> float:
        """When it happened; waits for it."""
        with self._changed:
            if not self._changed.wait_for(lambda: (what, room) in self._told, 120):
                sys.exit(f"room {room} was not {what} within 120 s")
            return self._told[what, room]


class Engine:
    """A pool of pages, and the `EngineEvents` of its client; rooms lie at the pool's start."""

    def __init__(self, page_count: int, *, filled: bool) -> None:
        self.told = Waiting()
        shape = (page_count, *LAYOUT.block_shape(1, 1)[3:])
        buffers = [torch.zeros(shape, dtype=torch.int16) for _ in range(2 * LAYOUT.layer_count)]
        if filled:
            rng = np.random.default_rng(0)
            values = rng.standard_normal(shape, np.float32)
            bits = torch.from_numpy(from_float32(values, LAYOUT.dtype).view(np.int16))
            for buffer in buffers:
                buffer.copy_(bits)
        self.pages = PageMemory(LAYOUT, LAYOUT.whole, buffers)
        self.order = np.random.default_rng(1).permutation(page_count).astype(np.int32)

    def on_reserved(self, room: int, page_count: int) -> None:
        """See `EngineEvents`."""
        del page_count
        self.told.tell("reserved", room)

    def on_pages(self, room: int, block: Any, values: Any) -> None:
        """See `EngineEvents`."""
        del room
        self.pages.write(block, self.order[block.first_page : block.end_page], values)

    def on_aux(self, room: int, aux: bytes) -> None:
        """See `EngineEvents`."""

    def on_committed(self, room: int) -> None:
        """See `EngineEvents`."""
        self.told.tell("committed", room)

    def on_failed(self, room: int, reason: str) -> None:
        """See `EngineEvents`; whoever waits for the room says so."""


def decode(socket_path: Path, peer: str, pipe: Any) -> None:
    """The decode engine's process: reserves the rooms that it is told."""
    torch.set_num_threads(1)
    engine = Engine(LONG_PAGES, filled=False)
    client = EngineClient(socket_path, LAYOUT, Phase.DECODE, engine)
    client.start(30)
    pipe.send("ready")
    for room, page_count in iter(pipe.recv, None):
        client.reserve(room, peer, page_count)
    client.close()


class Transfers:
    """Two engines and two sidecars."""

    def __init__(self, client: EngineClient, engine: Engine, pipe: Any) -> None:
        self._engine, self._pipe = engine, pipe
        self._senders = Senders(client, engine.pages, AuxMemory((), ()), self._failed)
        self._room = 0

    def start(self, page_count: int) -> tuple[int, float]:
        """Begin a transfer; its room, and when its pages were there to send."""
        self._room += 1
        self._pipe.send((self._room, page_count))
        self._engine.told.wait("reserved", self._room)
        start_s = time.monotonic()
        self._senders.put(Chunk(self._room, 0, self._engine.order[:page_count], 0))
        return self._room, start_s

    def end(self, room: int) -> float:
        """When the prefill engine was told that all had arrived."""
        return self._engine.told.wait("committed", room)

    def seconds(self, page_count: int) -> float:
        """One transfer, alone."""
        room, start_s = self.start(page_count)
        return self.end(room) - start_s

    @staticmethod
    def _failed(room: int, reason: str) -> None:
        raise RuntimeError(f"room {room}: {reason}")


@contextlib.contextmanager
def path(folder: Path, mode: str) -> Iterator[Transfers]:
    """Everything started; stopped at the end."""
    sockets = [folder / name for name in ("prefill", "decode")]
    certify([Path(f"{socket_path}.identity") for socket_path in sockets])
    with contextlib.ExitStack() as stack:
        for number, socket_path in enumerate(sockets):
            process = subprocess.Popen(sidecar(socket_path, 17400 + 2 * number, mode))
            stack.callback(process.wait)
            stack.callback(process.terminate)
        mine, theirs = multiprocessing.Pipe()
        arguments = (sockets[1], ADDRESS.format(17400), theirs)
        other = multiprocessing.get_context("spawn").Process(target=decode, args=arguments)
        other.start()
        stack.callback(other.join)
        stack.callback(mine.send, None)
        engine = Engine(LONG_PAGES, filled=True)
        client = EngineClient(sockets[0], LAYOUT, Phase.PREFILL, engine)
        client.start(60)
        stack.callback(client.close)
        mine.recv()  # it is ready
        yield Transfers(client, engine, mine)


def certify(folders: list[Path]) -> None:
    """A certificate for each sidecar, of a fleet that lives as long as this run."""
    validity = Validity.of_days(1, datetime.now(UTC))
    authority = Authority.create("path", validity)
    for number, folder in enumerate(folders):
        authority.issue(Identity("path", Role.KVLINK, f"g{number}"), validity, folder)


def sidecar(socket_path: Path, port: int, mode: str) -> list[str]:
    """The command of one."""
    settings = (
        f"address={ADDRESS.format(port)}",
        f"identity={socket_path}.identity",
        f"local_address=unix:{socket_path}.local",
        f"engine_socket={socket_path}",
        f"wire_mode={mode}",
    )
    words = [word for setting in settings for word in ("--set", setting)]
    return [sys.executable, "-m", "thunderserve.kvlink", "--log-level", "warning", *words]


def measure(mode: str) -> dict[str, float]:
    """Figures of one wire mode."""
    with tempfile.TemporaryDirectory() as folder, path(Path(folder), mode) as both:
        both.seconds(PAGES)  # the first one touches the memory
        alone = [both.seconds(PAGES) for _ in range(ROUNDS)]
        short_alone = [both.seconds(SHORT_PAGES) for _ in range(SHORTS)]
        beside, shares = [], []
        for _ in range(3):
            long, long_start_s = both.start(LONG_PAGES)
            time.sleep(0.02)
            shorts = [both.seconds(SHORT_PAGES) for _ in range(SHORTS // 3)]
            long_s = both.end(long) - long_start_s
            beside += shorts
            shares.append(max(shorts) / long_s)
    raw_bytes = PAGES * LAYOUT.page_bytes
    return {
        "gigabytes_per_s": raw_bytes / min(alone) / 1e9,
        "gigabytes_per_s_median": raw_bytes / statistics.median(alone) / 1e9,
        "short_alone_ms": 1e3 * statistics.median(short_alone),
        "short_beside_long_ms": 1e3 * statistics.median(beside),
        "short_beside_long_worst_ms": 1e3 * max(beside),
        "short_beside_x_alone": statistics.median(beside) / statistics.median(short_alone),
        "short_x_long_worst": max(shares),
    }


def main() -> None:
    """Command-line entry."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--link", help="rate of the shaped loopback, as tc writes it: 1gbit")
    parser.add_argument("--mode", choices=["raw16", "int4"], action="append")
    parser.add_argument("-o", "--output", choices=["table", "json"], default="table")
    arguments = parser.parse_args()
    if arguments.link and "SHAPED" not in os.environ:
        shape = f'{SHAPE.format(arguments.link)} && SHAPED=1 exec "$@"'
        command = ["unshare", "-n", "sh", "-c", shape, "sh", sys.executable, *sys.argv]
        sys.exit(subprocess.run(command, check=False).returncode)
    torch.set_num_threads(1)
    figures = {mode: measure(mode) for mode in arguments.mode or ["raw16", "int4"]}
    if arguments.output == "json":
        print(json.dumps(figures))
        return
    for mode, values in figures.items():
        for name, value in values.items():
            print(f"{mode:6} {name:28} {value:9.3f}")


if __name__ == "__main__":
    main()
