"""The transfer's books: everything exactly once, or no commit."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from thunderserve.core.errors import InvalidArgumentError, TransferError
from thunderserve.core.kv import KvLayout
from thunderserve.core.request import WireMode
from thunderserve.kvlink.protocol import (
    HEADER_BYTES,
    Block,
    FingerprintMismatchError,
    FrameHeader,
    FrameKind,
    FrameOrderError,
    IncompleteTransferError,
    Transfer,
    TransferState,
    make_frame,
    split_block,
)

LAYOUT = KvLayout("m", 3, 2, 8, 4, "float16")
PAGES = 5
HEADS = LAYOUT.kv_head_count
WHOLE = Block(0, 3, 0, HEADS, 0, PAGES)


def frame(
    kind: FrameKind, payload: bytes = b"", block: Block | None = None, layout: KvLayout = LAYOUT
) -> FrameHeader:
    return make_frame(kind, 7, layout.fingerprint, payload, block=block)


def pages(
    first_layer: int, layers: int, first_page: int, page_count: int, heads: tuple[int, int] = (0, 2)
) -> FrameHeader:
    block = Block(first_layer, layers, *heads, first_page, page_count)
    return frame(FrameKind.PAGES, b"x", block)


@pytest.fixture
def transfer() -> Transfer:
    return Transfer(7, LAYOUT, PAGES, WireMode.INT4)


def test_transfer_commits_when_everything_came_once(transfer: Transfer) -> None:
    """Pages in any cut and order, then the report counts them."""
    for part in (pages(1, 2, 0, 5), pages(0, 1, 3, 2), frame(FrameKind.AUX, b"aux")):
        transfer.accept(part, now_s=1.0)
    transfer.accept(pages(0, 1, 0, 3), now_s=2.0)

    transfer.commit(frame(FrameKind.END), now_s=4.0)

    assert transfer.state is TransferState.COMMITTED
    report = transfer.report
    assert report.raw_bytes == LAYOUT.page_bytes * PAGES
    assert report.wire_bytes == 5 * HEADER_BYTES + 3 + 3
    assert report.seconds == 3.0
    assert report.wire_mode is WireMode.INT4


@pytest.mark.parametrize(
    ("computed_s", "exposed_s", "exposed_frames"), [(None, 3.0, 4), (1.5, 2.5, 3), (0.5, 3.5, 4)]
)
def test_report_tells_what_decode_waited_for_when_prefill_had_ended(
    transfer: Transfer, computed_s: float | None, exposed_s: float, exposed_frames: int
) -> None:
    """All of it when nobody said when prefill ended, or when it ended before the first frame."""
    parts = (pages(0, 3, 0, 4), pages(0, 3, 4, 1), frame(FrameKind.AUX, b"x"))
    for now_s, part in zip((1.0, 2.0, 3.0), parts, strict=True):
        if computed_s is not None and now_s > computed_s:
            transfer.note_computed(computed_s)
            computed_s = None
        transfer.accept(part, now_s)

    transfer.commit(frame(FrameKind.END), 4.0)

    assert transfer.report.exposed_s == exposed_s
    assert transfer.report.exposed_bytes == exposed_frames * HEADER_BYTES + exposed_frames - 1
    assert transfer.report.hidden_ratio == pytest.approx(1 - exposed_frames / 4, abs=0.01)


@pytest.mark.parametrize("left_out", [0, 1, 2])
def test_transfer_does_not_commit_when_anything_is_missing(
    transfer: Transfer, left_out: int
) -> None:
    """A wrong cache is worse than none."""
    parts = [pages(0, 3, 0, 4), pages(0, 3, 4, 1), frame(FrameKind.AUX)]
    del parts[left_out]
    for part in parts:
        transfer.accept(part, 1.0)

    with pytest.raises(IncompleteTransferError, match="missing"):
        transfer.commit(frame(FrameKind.END), 2.0)

    assert transfer.state is TransferState.SENDING


@pytest.mark.parametrize(
    "second", [(0, 1, 2, 1), (2, 1, 0, 5), (0, 3, 4, 2), (2, 2, 4, 1), (3, 1, 0, 1)]
)
def test_transfer_refuses_pages_when_seen_before_or_outside(
    transfer: Transfer, second: tuple[int, int, int, int]
) -> None:
    """The second block overlaps the first, or leaves the room; nothing of it counts."""
    transfer.accept(pages(0, 3, 0, 4), 1.0)
    before = transfer.report

    with pytest.raises(FrameOrderError):
        transfer.accept(pages(*second), 1.0)

    assert transfer.report == before


def test_transfer_refuses_aux_when_it_comes_twice(transfer: Transfer) -> None:
    """The second would overwrite the first token."""
    transfer.accept(frame(FrameKind.AUX), 1.0)

    with pytest.raises(FrameOrderError, match="twice"):
        transfer.accept(frame(FrameKind.AUX), 1.0)


def test_transfer_refuses_pages_when_of_another_layout(transfer: Transfer) -> None:
    """Other page sizes mean other bytes."""
    other = KvLayout("m", 3, 2, 8, 8, "float16")

    with pytest.raises(FingerprintMismatchError):
        transfer.accept(frame(FrameKind.AUX, layout=other), 1.0)


def test_transfer_takes_nothing_when_it_has_ended(transfer: Transfer) -> None:
    """Aborted stays aborted, with the first reason."""
    assert transfer.abort("cancelled", 1.0)
    assert not transfer.abort("again", 2.0)

    with pytest.raises(TransferError, match="cancelled"):
        transfer.accept(frame(FrameKind.AUX), 3.0)
    with pytest.raises(TransferError, match="cancelled"):
        transfer.commit(frame(FrameKind.END), 3.0)


def test_transfer_cannot_be_when_it_has_no_pages() -> None:
    """An empty prompt is a bug upstream."""
    with pytest.raises(InvalidArgumentError, match="0 pages"):
        Transfer(7, LAYOUT, 0, WireMode.RAW16)


@settings(deadline=None)  # on a busy machine time says nothing
@given(
    st.integers(0, 3),
    st.integers(1, 6),
    st.integers(0, 9),
    st.integers(1, 40),
    st.integers(LAYOUT.page_layer_bytes, 40 * LAYOUT.page_bytes),
)
def test_split_covers_a_block_once_when_cut_to_any_size(
    first_layer: int, layers: int, first_page: int, page_count: int, max_bytes: int
) -> None:
    """The parts are small enough, and each cell of the block is in exactly one."""
    block = Block(first_layer, layers, 0, HEADS, first_page, page_count)

    parts = list(split_block(LAYOUT, block, max_bytes))

    cells = [
        (layer, page)
        for part in parts
        for layer in range(part.first_layer, part.first_layer + part.layer_count)
        for page in range(part.first_page, part.first_page + part.page_count)
    ]
    sizes = [LAYOUT.page_layer_bytes * p.layer_count * p.page_count for p in parts]
    assert max(sizes) <= max_bytes
    assert len(cells) == len(set(cells)) == layers * page_count


def test_split_fails_when_one_page_is_too_large() -> None:
    """The message names the key to change."""
    with pytest.raises(InvalidArgumentError, match="max_frame_bytes"):
        list(split_block(LAYOUT, WHOLE, LAYOUT.page_layer_bytes - 1))
