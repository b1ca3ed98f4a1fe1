"""Blocks between two engines of any degrees: every value arrives once, where it belongs."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kv_parts import parts_of

from thunderserve.core.errors import InvalidArgumentError
from thunderserve.core.kv import KvLayout, KvPart, parts_cover
from thunderserve.core.request import WireMode
from thunderserve.kvlink.codec import codec_for
from thunderserve.kvlink.protocol import (
    Block,
    FrameKind,
    FrameOrderError,
    IncompleteTransferError,
    Transfer,
    block_of_part,
    make_frame,
    split_block,
)

HEADS = (1, 2, 4, 6, 8)
DEGREES = (1, 2, 3, 4, 6, 8)


@st.composite
def engine_pairs(draw: st.DrawFn) -> tuple[KvLayout, list[KvPart], list[KvPart]]:
    """A layout, and the ranks of a prefill and of a decode engine that hold it."""
    heads = draw(st.sampled_from(HEADS))
    layers = draw(st.integers(1, 7))
    layout = KvLayout("m", layers, heads, 16, 2, "bfloat16")
    fitting = [tp for tp in DEGREES if heads % tp == 0 or tp % heads == 0]
    sides = [
        parts_of(layout, draw(st.sampled_from(fitting)), draw(st.integers(1, layers)))
        for _ in range(2)
    ]
    return layout, sides[0], sides[1]


def sent_by(
    layout: KvLayout, ranks: list[KvPart], chunks: list[int], max_bytes: int
) -> list[Block]:
    """The frames of a room that is computed in chunks of so many pages."""
    firsts = [sum(chunks[:place]) for place in range(len(chunks))]
    return [
        block
        for part in ranks
        if not part.copy
        for first, count in zip(firsts, chunks, strict=True)
        for block in split_block(layout, block_of_part(part, first, count), max_bytes)
    ]


@settings(deadline=None, derandomize=True)
@given(
    engine_pairs(),
    st.lists(st.integers(1, 4), min_size=1, max_size=3),
    st.integers(1, 5),
    st.randoms(use_true_random=False),
)
def test_every_value_arrives_once_when_any_engine_sends_to_any_other(
    pair: tuple[KvLayout, list[KvPart], list[KvPart]],
    chunks: list[int],
    pages_a_frame: int,
    shuffling: object,
) -> None:
    """Prefill ranks send what they hold, in any order; decode ranks end with what they hold."""
    layout, senders, receivers = pair
    page_count = sum(chunks)
    shape = layout.block_shape(layout.layer_count, page_count)
    cache = np.random.default_rng(1).integers(1, 2**16, shape, dtype=np.uint16)
    arrived = [np.zeros(shape, np.uint16) for _ in receivers]
    times = [np.zeros(shape, np.int8) for _ in receivers]
    transfer = Transfer(7, layout, page_count, WireMode.RAW16)
    blocks = sent_by(layout, senders, chunks, layout.page_layer_bytes * pages_a_frame)
    shuffling.shuffle(blocks)  # type: ignore[attr-defined]

    for block in blocks:
        header = make_frame(FrameKind.PAGES, 7, layout.fingerprint, b"", block=block)
        transfer.accept(header, 1.0)
        values = cache[block.slices()]
        assert values.shape == block.shape(layout)
        for place, part in enumerate(receivers):
            if (mine := block.intersection(part)) is not None:
                arrived[place][mine.slices()] = values[mine.slices(block)]
                times[place][mine.slices()] += 1

    transfer.accept(make_frame(FrameKind.AUX, 7, layout.fingerprint), 1.0)
    transfer.check_complete()
    assert transfer.report.raw_bytes == cache.nbytes
    for place, part in enumerate(receivers):
        held = block_of_part(part, 0, page_count).slices()
        assert np.array_equal(arrived[place][held], cache[held])
        assert times[place][held].min() == times[place][held].max() == 1
        assert times[place].sum() == times[place][held].size, "nothing that is another rank's"


@settings(deadline=None, derandomize=True)
@given(engine_pairs(), st.data())
def test_transfer_is_incomplete_when_any_one_frame_is_left_out(
    pair: tuple[KvLayout, list[KvPart], list[KvPart]], data: st.DataObject
) -> None:
    """The books see it whichever rank's, layers', heads' or pages' it was; a repetition, too."""
    layout, senders, _ = pair
    blocks = sent_by(layout, senders, [2, 1], layout.page_layer_bytes)
    left_out = blocks.pop(data.draw(st.integers(0, len(blocks) - 1)))
    transfer = Transfer(7, layout, 3, WireMode.RAW16)
    headers = [make_frame(FrameKind.PAGES, 7, layout.fingerprint, block=b) for b in blocks]
    for header in (*headers, make_frame(FrameKind.AUX, 7, layout.fingerprint)):
        transfer.accept(header, 1.0)

    with pytest.raises(IncompleteTransferError, match=f"layer {left_out.first_layer}"):
        transfer.check_complete()
    for header in headers:
        with pytest.raises(FrameOrderError, match="came before"):
            transfer.accept(header, 1.0)


@settings(deadline=None, derandomize=True)
@given(engine_pairs())
def test_ranks_of_an_engine_hold_the_cache_once_when_copies_are_left_out(
    pair: tuple[KvLayout, list[KvPart], list[KvPart]],
) -> None:
    """So that nothing is sent twice and nothing is missing."""
    layout, ranks, _ = pair

    assert parts_cover(layout, ranks)
    assert not parts_cover(layout, ranks[1:])


@settings(deadline=None, derandomize=True, max_examples=20)
@given(st.sampled_from([1, 2, 4]), st.sampled_from(list(WireMode)[1:]), st.integers(8, 40))
def test_codec_makes_the_same_of_heads_when_they_are_sent_apart(
    tp: int, mode: WireMode, page_count: int
) -> None:
    """What a decode engine gets does not depend on the prefill engine's degree."""
    layout = KvLayout("m", 2, 4, 16, 8, "bfloat16")
    values = np.random.default_rng(2).normal(size=block_shape(layout, page_count))
    cache = (values.astype(np.float32).view(np.uint32) >> 16).astype(np.uint16)

    def through(part: KvPart) -> np.ndarray:
        block = block_of_part(part, 0, page_count)
        codec = codec_for(mode, layout.of_heads(block.head_count), block)
        payload = codec.encode(cache[block.slices()])
        return codec.decode(payload, block.layer_count, block.page_count)

    apart = np.concatenate([through(part) for part in parts_of(layout, tp, 1)], axis=4)

    assert np.array_equal(apart, through(layout.whole))


def block_shape(layout: KvLayout, page_count: int) -> tuple[int, ...]:
    return layout.block_shape(layout.layer_count, page_count)


def test_block_cannot_be_when_it_holds_nothing() -> None:
    """An empty range is a bug upstream."""
    with pytest.raises(InvalidArgumentError, match="empty"):
        Block(0, 1, 0, 0, 0, 1)
    with pytest.raises(InvalidArgumentError, match="below 0"):
        Block(0, 1, -1, 1, 0, 1)
