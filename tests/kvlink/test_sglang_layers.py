"""Layers that leave while later ones are computed, without SGLang."""

from __future__ import annotations

import threading
from dataclasses import dataclass
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

LAYOUT = KvLayout("m", 8, 2, 64, 16, "bfloat16")  # 8 KiB a page and layer
PAGES = np.arange(16, dtype=np.int32)  # of which 128 KiB a layer
TOKENS = 256
ROOM = 7


class Puts:
    """What a stream handed on."""

    def __init__(self, part: KvPart = LAYOUT.whole) -> None:
        self.layer_counts: list[int] = []
        self.stream = LayerStream(LAYOUT, part, self._put)

    def _put(self, written: Written, layer_count: int, event: Any) -> None:
        assert written.room == ROOM
        assert event == "event"
        self.layer_counts.append(layer_count)

    def run(self, *noted: int, pages: np.ndarray = PAGES, tokens: int = TOKENS) -> list[int]:
        """How many layers were ready at each put of a pass that writes these."""
        self.stream.begin(TOKENS)
        self.stream.add(Written(ROOM, 0, pages))
        for layer in noted:
            self.stream.note(layer, tokens, lambda: "event")
        self.stream.end()
        return self.layer_counts


def test_layers_are_put_one_by_one_when_they_are_large() -> None:
    """All but the last, which goes with the chunk that follows at once."""
    assert Puts().run(*range(8)) == [1, 2, 3, 4, 5, 6, 7]


def test_layers_are_put_together_when_they_are_small() -> None:
    """A message for each layer of a short prompt would cost more than its lead is worth."""
    assert Puts().run(*range(8), pages=PAGES[:6]) == [3, 6]
    assert Puts().run(*range(8), pages=PAGES[:1]) == []


def test_layers_of_a_stage_are_put_when_the_engine_has_several() -> None:
    """Their numbers are the whole model's, their count is the stage's."""
    assert Puts(KvPart(4, 4, 0, 2, 1, 2)).run(4, 5, 6, 7) == [1, 2, 3]


@pytest.mark.parametrize("noted", [(0, 0, 1, 2), (0, 2, 3), (1, 2, 3)])
def test_layers_are_left_to_the_chunk_when_they_come_out_of_order(noted: tuple[int, ...]) -> None:
    """What has been put stays put; nothing is guessed from then on."""
    assert Puts().run(*noted) in ([], [1])


def test_layers_are_left_to_the_chunk_when_a_part_of_the_batch_is_written() -> None:
    """Two halves of a batch that overlap each other, or a pass that is not the request's."""
    assert Puts().run(*range(8), tokens=64) == []
    puts = Puts()
    puts.run(*range(8))
    before = list(puts.layer_counts)
    puts.stream.note(0, TOKENS, lambda: "event")
    assert puts.layer_counts == before


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
        self.times_sent[block.first_layer : block.end_layer, block.first_page : block.end_page] += 1

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


@dataclass(frozen=True)
class Step:
    """A chunk, and how many layers its pass and the next one put before it."""

    page_count: int
    own_layers: int
    next_layers: int


STEPS = st.builds(Step, st.integers(1, 12), st.integers(0, 8), st.integers(0, 8))


@settings(max_examples=40, deadline=None)
@given(st.lists(STEPS, min_size=1, max_size=3))
def test_every_page_is_sent_once_when_some_layers_went_before_their_chunk(
    steps: list[Step],
) -> None:
    """Whatever passes put before; with an overlapping scheduler the next one does so, too."""
    pool = [torch.arange(40 * 16 * 2 * 64, dtype=torch.int32) % 30011 for _ in range(16)]
    memory = PageMemory(
        LAYOUT, LAYOUT.whole, [p.to(torch.int16).view(40, 16, 2, 64) + 1 for p in pool]
    )
    client, failed = FakeClient(), list[str]()
    senders = Senders(client, memory, AuxMemory((), ()), lambda _, why: failed.append(why))  # type: ignore[arg-type]  # in its place
    order = np.random.default_rng(0).permutation(40).astype(np.int32)
    first = 0
    try:
        for number, step in enumerate(steps):
            pages = order[first : first + step.page_count]
            written, is_last = Written(ROOM, first, pages), number + 1 == len(steps)
            senders.put_layers(written, step.own_layers, None)
            senders.put_layers(written, step.next_layers, None)
            senders.put(Chunk(ROOM, first, pages, 0 if is_last else None))
            if not is_last:
                senders.put_layers(written, step.next_layers, None)
            first += step.page_count
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
