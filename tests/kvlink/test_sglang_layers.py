"""Layers that leave while later ones are computed, without SGLang."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from thunderserve.core.kv import KvLayout, KvPart
from thunderserve.kvlink.protocol import Block
from thunderserve.kvlink.sglang_plugin.layers import LayerStream, Written
from thunderserve.kvlink.sglang_plugin.memory import AuxMemory, PageMemory
from thunderserve.kvlink.sglang_plugin.senders import Chunk, Senders

LAYOUT = KvLayout("m", 8, 2, 64, 16, "bfloat16")  # 16 KiB a page and layer
PAGES = np.arange(8, dtype=np.int32)  # of which 128 KiB a layer
ROOM = 7


class Puts:
    """What a stream handed on."""

    def __init__(self, part: KvPart = LAYOUT.whole) -> None:
        self.layers: list[range] = []
        self.stream = LayerStream(LAYOUT, part, self._put)

    def _put(self, written: Written, first_layer: int, count: int, event: Any) -> None:
        assert written.room == ROOM
        assert event == "event"
        self.layers.append(range(first_layer, first_layer + count))

    def run(self, *noted: int, pages: np.ndarray = PAGES, tokens: int = 128) -> list[range]:
        """A pass over 128 tokens that writes these layers."""
        self.stream.begin(128)
        self.stream.add(Written(ROOM, 0, pages))
        for layer in noted:
            self.stream.note(layer, tokens, lambda: "event")
        self.stream.end()
        return self.layers


def test_layers_are_put_one_by_one_when_they_are_large() -> None:
    """All but the last, which goes with the chunk that follows at once."""
    assert Puts().run(*range(8)) == [range(n, n + 1) for n in range(7)]


def test_layers_are_put_together_when_they_are_small() -> None:
    """A message for each layer of a short prompt would cost more than its lead is worth."""
    assert Puts().run(*range(8), pages=PAGES[:3]) == [range(3), range(3, 6)]
    assert Puts().run(*range(8), pages=PAGES[:1]) == []


def test_layers_of_a_stage_are_put_when_the_engine_has_several() -> None:
    """Their numbers are the whole model's."""
    assert Puts(KvPart(4, 4, 0, 2, 1, 2)).run(4, 5, 6, 7) == [range(n, n + 1) for n in (4, 5, 6)]


@pytest.mark.parametrize("noted", [(0, 0, 1, 2), (0, 2, 3), (1, 2, 3)])
def test_layers_are_left_to_the_chunk_when_they_come_out_of_order(noted: tuple[int, ...]) -> None:
    """What has been put stays put; nothing is guessed from then on."""
    assert Puts().run(*noted) in ([], [range(1)])


def test_layers_are_left_to_the_chunk_when_a_part_of_the_batch_is_written() -> None:
    """Two halves of a batch that overlap each other, or a pass that is not the request's."""
    assert Puts().run(*range(8), tokens=64) == []
    puts = Puts()
    puts.run(*range(8))
    before = list(puts.layers)
    puts.stream.note(0, 128, lambda: "event")
    assert puts.layers == before


class FakeClient:
    """Takes every block at once."""

    block_bytes = 64 * 1024

    def __init__(self) -> None:
        self.cache = np.zeros(LAYOUT.block_shape(8, 40), np.uint16)
        self.times_sent = np.zeros((8, 40), int)
        self.said: list[str] = []
        self.finished = threading.Event()

    def on_slot_freed(self, call: Any) -> None:
        """Slots never run out."""

    def has_slot(self, room: int) -> bool:
        """Never."""
        return bool(room)

    def try_slot(self, room: int) -> None:
        """None is needed."""

    def send_block(self, room: int, block: Block, fill: Any, slot: None) -> None:
        """Into the cache."""
        assert (room, slot) == (ROOM, None)
        values = np.zeros(block.shape(LAYOUT), np.uint16)
        fill(values)
        self.cache[block.slices()] = values
        self.times_sent[
            block.first_layer : block.end_layer, block.first_page : block.end_page
        ] += 1

    def send_aux(self, room: int, aux: bytes) -> None:
        """After all blocks."""
        assert (room, aux) == (ROOM, b"")
        self.said.append("aux")

    def computed(self, room: int) -> None:
        """Before what is left."""
        assert room == ROOM
        self.said.append("computed")

    def finish(self, room: int) -> None:
        """The end."""
        assert room == ROOM
        self.said.append("finish")
        self.finished.set()


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 12), st.integers(0, 8)), min_size=1, max_size=3))
def test_every_page_is_sent_once_when_some_layers_went_before_their_chunk(
    chunks: list[tuple[int, int]],
) -> None:
    """Chunk by chunk, whatever number of layers the passes put before."""
    pool = [torch.arange(40 * 16 * 2 * 64, dtype=torch.int32) % 30011 for _ in range(16)]
    memory = PageMemory(
        LAYOUT, LAYOUT.whole, [p.to(torch.int16).view(40, 16, 2, 64) + 1 for p in pool]
    )
    client, failed = FakeClient(), list[str]()
    senders = Senders(client, memory, AuxMemory((), ()), lambda _, why: failed.append(why))  # type: ignore[arg-type]  # in its place
    order = np.random.default_rng(0).permutation(40).astype(np.int32)
    first = 0
    try:
        for number, (pages, layers) in enumerate(chunks):
            numbers = order[first : first + pages]
            if layers:
                senders.put_layers(Written(ROOM, first, numbers), 0, layers, None)
            is_last = number + 1 == len(chunks)
            senders.put(Chunk(ROOM, first, numbers, 0 if is_last else None))
            first += pages
        assert client.finished.wait(10)
    finally:
        senders.close()

    assert not failed
    assert client.said[-2:] == ["aux", "finish"]
    assert "computed" in client.said
    assert (client.times_sent[:, :first] == 1).all()
    want = np.zeros_like(client.cache[:, :, :first])
    memory.read(Block(0, 8, 0, 2, 0, first), order[:first], want)
    assert np.array_equal(client.cache[:, :, :first], want)
