"""Two caches are exchangeable exactly when a page means the same in both."""

from dataclasses import replace
from typing import Any

import pytest

from thunderserve.core.errors import InvalidArgumentError
from thunderserve.core.kv import KvLayout, KvPart, heads_of_rank, parts_cover

LAYOUT = KvLayout("demo", 8, 2, 64, 16, "bfloat16")


def test_page_bytes_are_keys_and_values_of_every_head_and_token() -> None:
    assert LAYOUT.page_layer_bytes == 2 * 16 * 2 * 64 * 2
    assert LAYOUT.page_bytes == 8 * LAYOUT.page_layer_bytes
    assert LAYOUT.block_shape(3, 5) == (3, 2, 5, 16, 2, 64)


def test_parallel_degrees_do_not_keep_caches_apart() -> None:
    wide = replace(LAYOUT, tp=2, pp=4)
    assert wide.fingerprint == LAYOUT.fingerprint
    assert wide.mismatch(LAYOUT) is None


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("model_fingerprint", "other"),
        ("layer_count", 9),
        ("kv_head_count", 4),
        ("head_dim", 128),
        ("page_size_tokens", 1),
        ("dtype", "float16"),
    ],
)
def test_anything_else_does(field: str, value: Any) -> None:
    other = replace(LAYOUT, **{field: value})
    assert other.fingerprint != LAYOUT.fingerprint
    assert (LAYOUT.mismatch(other) or "").startswith(field)


def test_layout_is_refused_when_a_size_is_not_positive_or_its_dtype_is_unknown() -> None:
    with pytest.raises(InvalidArgumentError, match="head_dim is 0"):
        replace(LAYOUT, head_dim=0)
    with pytest.raises(InvalidArgumentError, match="'int4' is not one of"):
        replace(LAYOUT, dtype="int4")


def test_bytes_of_heads_add_up_to_those_of_a_layer() -> None:
    assert LAYOUT.page_head_bytes * 2 == LAYOUT.page_layer_bytes
    assert LAYOUT.of_heads(1).page_layer_bytes == LAYOUT.page_head_bytes
    assert LAYOUT.block_shape(3, 5, 1) == (3, 2, 5, 16, 1, 64)


@pytest.mark.parametrize(
    ("heads", "tp", "dealt"),
    [
        (8, 1, [(0, 8, False)]),
        (8, 4, [(0, 2, False), (2, 2, False), (4, 2, False), (6, 2, False)]),
        (2, 4, [(0, 1, False), (0, 1, True), (1, 1, False), (1, 1, True)]),
        (1, 3, [(0, 1, False), (0, 1, True), (0, 1, True)]),
    ],
)
def test_heads_are_dealt_out_in_order_and_copied_when_there_are_too_few(
    heads: int, tp: int, dealt: list[tuple[int, int, bool]]
) -> None:
    assert [heads_of_rank(heads, tp, rank) for rank in range(tp)] == dealt


def test_heads_are_not_dealt_out_when_neither_number_divides_the_other() -> None:
    with pytest.raises(InvalidArgumentError, match="6 KV heads cannot be dealt out to 4 ranks"):
        heads_of_rank(6, 4, 0)


def test_parts_cover_a_cache_when_each_head_of_each_layer_is_held_once() -> None:
    left, right = KvPart(0, 8, 0, 1, 0, 2), KvPart(0, 8, 1, 1, 1, 2)
    assert parts_cover(LAYOUT, [left, right])
    assert parts_cover(LAYOUT, [left, right, replace(right, copy=True)])
    assert parts_cover(LAYOUT, [LAYOUT.whole])
    assert not parts_cover(LAYOUT, [left])
    assert not parts_cover(LAYOUT, [left, right, right])
    assert not parts_cover(LAYOUT, [left, replace(right, layer_count=7)])
    assert not parts_cover(LAYOUT, [left, replace(right, layer_count=9)])
    assert not parts_cover(LAYOUT, [left, replace(right, first_head=2)])


def test_part_is_refused_when_it_is_empty_or_of_no_such_rank() -> None:
    with pytest.raises(InvalidArgumentError, match="empty"):
        KvPart(0, 0, 0, 1)
    with pytest.raises(InvalidArgumentError, match="rank 2 is not one of 2"):
        KvPart(0, 1, 0, 1, 2, 2)
