"""Two caches are exchangeable exactly when a page means the same in both."""

from dataclasses import replace
from typing import Any

import pytest

from thunderserve.core.errors import InvalidArgumentError
from thunderserve.core.kv import KvLayout

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
