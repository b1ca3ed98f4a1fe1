"""A prefill engine for measuring, in a process of its own.

    python -m thunderserve.cli.bench.prefill JSON

It speaks the engines' protocol and sends every room that is asked for, layer by layer: random
values, ready at once, or what the demo model computes of a prompt, each layer as it is computed.
"""

from __future__ import annotations

import functools
import json
import queue
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from thunderserve.core.kv import KvLayout
from thunderserve.core.plan import Phase
from thunderserve.kvlink.codec.float16 import from_float32
from thunderserve.kvlink.engine_client import EngineClient

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from thunderserve.kvlink.protocol import Block

__all__ = ["is_ready_room", "main"]


def is_ready_room(room: int) -> bool:
    """Whether the demo model computes the whole cache before its first layer is sent.

    Every other one is: what a transfer takes that nothing hides.
    """
    return room % 2 == 0


class Source(Protocol):
    """Where a room's cache comes from."""

    def fill(self, room: int, page_count: int, send: Callable[[np.ndarray, int], None]) -> float:
        """Give each layer (1, keys|values, pages, page tokens, heads, d) to `send`.

        Returns:
            When the last value was computed, by the monotonic clock.
        """


class RandomSource:
    """Values with channels of unequal size, as caches have them; computed once."""

    def __init__(self, layout: KvLayout) -> None:
        self._layout = layout
        self._made: dict[int, np.ndarray] = {}

    def fill(self, room: int, page_count: int, send: Callable[[np.ndarray, int], None]) -> float:
        """See `Source`."""
        del room
        if page_count not in self._made:
            self._made[page_count] = _random_layer(self._layout, page_count)
        values, ready_s = self._made[page_count], time.monotonic()
        for layer in range(self._layout.layer_count):
            send(values, layer)
        return ready_s


class ModelSource:
    """The demo model reads held-out text; its prefill takes what it takes."""

    def __init__(self, layout: KvLayout) -> None:
        import torch  # noqa: PLC0415 - the other source needs none

        from thunderserve.demo_model import reading  # noqa: PLC0415 - as above

        torch.set_num_threads(1)  # the sidecar needs the other core
        self._layout, self._reading, self._torch = layout, reading, torch
        self._model = reading.load()
        self._text = functools.cache(lambda tokens: reading.windows(tokens, 1))

    def fill(self, room: int, page_count: int, send: Callable[[np.ndarray, int], None]) -> float:
        """See `Source`."""
        ids = self._text(page_count * self._layout.page_size_tokens)
        waiting: list[tuple[np.ndarray, int]] = []
        at_once = not is_ready_room(room)

        def take(layer: int, cache: Any) -> None:
            values = self._as_pages(cache, page_count)
            send(values, layer) if at_once else waiting.append((values, layer))

        self._reading.prefill(self._model, ids, take)
        ready_s = time.monotonic()
        for values, layer in waiting:
            send(values, layer)
        return ready_s

    def _as_pages(self, cache: Any, page_count: int) -> np.ndarray:
        """(2, T, heads, d) float32 to a layer's pages."""
        bits = cache.bfloat16().contiguous().view(self._torch.uint16)
        values: np.ndarray = bits.reshape(self._layout.block_shape(1, page_count)).numpy()
        return values


@dataclass
class Sent:
    """What became of a room, by the monotonic clock."""

    first_s: float = 0.0
    ready_s: float = 0.0
    ended: threading.Event = field(default_factory=threading.Event)
    ended_s: float = 0.0
    failure: str = ""


class PrefillEngine:
    """Sends rooms as they are asked for, several beside each other."""

    def __init__(self, socket_path: Path, layout: KvLayout, source: Source, threads: int) -> None:
        self._source = source
        self._asked: queue.Queue[tuple[int, int]] = queue.Queue()
        self._rooms: dict[int, Sent] = {}
        self.client = EngineClient(socket_path, layout, Phase.PREFILL, self)
        for _ in range(threads):
            threading.Thread(target=self._serve, daemon=True).start()

    def on_reserved(self, room: int, page_count: int) -> None:
        """See `EngineEvents`."""
        self._rooms[room] = Sent()
        self._asked.put((room, page_count))

    def on_pages(self, room: int, block: Block, values: np.ndarray) -> None:
        """See `EngineEvents`; a prefill engine is told of none."""

    def on_aux(self, room: int, aux: bytes) -> None:
        """See `EngineEvents`; as above."""

    def on_committed(self, room: int) -> None:
        """See `EngineEvents`."""
        self._end(room, "")

    def on_failed(self, room: int, reason: str) -> None:
        """See `EngineEvents`."""
        self._end(room, reason)

    def _end(self, room: int, failure: str) -> None:
        if (sent := self._rooms.pop(room, None)) is not None:
            sent.ended_s, sent.failure = time.monotonic(), failure
            sent.ended.set()

    def _serve(self) -> None:
        while True:
            room, page_count = self._asked.get()
            sent = self._rooms[room]
            outbox = Outbox(self.client, room)
            sent.ready_s = self._source.fill(room, page_count, outbox.put)
            outbox.close()
            self.client.send_aux(room, b"{}")
            self.client.finish(room)
            sent.first_s = outbox.first_s
            sent.ended.wait()
            self._tell(room, sent)

    @staticmethod
    def _tell(room: int, sent: Sent) -> None:
        line = {
            "room": room,
            "sending_s": sent.ended_s - sent.first_s,
            "exposed_s": sent.ended_s - sent.ready_s,
            "failure": sent.failure,
        }
        print(json.dumps(line), flush=True)  # noqa: T201 - its parent reads it


class Outbox:
    """Sends a room's layers in order, in a thread of its own: computing need not wait for it."""

    def __init__(self, client: EngineClient, room: int) -> None:
        self.first_s = 0.0
        self._client, self._room = client, room
        self._layers: queue.Queue[tuple[np.ndarray, int] | None] = queue.Queue()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def put(self, values: np.ndarray, layer: int) -> None:
        """A layer is ready."""
        self.first_s = self.first_s or time.monotonic()
        self._layers.put((values, layer))

    def close(self) -> None:
        """Wait until all layers have gone to the sidecar."""
        self._layers.put(None)
        self._thread.join()

    def _run(self) -> None:
        while (item := self._layers.get()) is not None:
            values, layer = item
            self._client.send_pages(self._room, 0, values, layer)


def _random_layer(layout: KvLayout, page_count: int) -> np.ndarray:
    shape = layout.block_shape(1, page_count)
    random = np.random.default_rng(0)
    scale = np.exp(random.normal(0, 0.5, shape[-2:]))
    values = (random.normal(size=shape) * scale).astype(np.float32)
    return from_float32(values, layout.dtype)


def main(argv: Sequence[str]) -> int:
    """Serve until it is killed."""
    given = json.loads(argv[0])
    layout = KvLayout(**given["layout"])
    source = ModelSource(layout) if given["model"] else RandomSource(layout)
    engine = PrefillEngine(Path(given["socket"]), layout, source, given["threads"])
    engine.client.start()
    print("ready", flush=True)  # noqa: T201 - its parent waits for it
    threading.Event().wait()
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
