"""Codecs: raw16 is exact, int4 is close where it must be, and neither grows a block."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from thunderserve.core.kv import KvLayout
from thunderserve.core.request import WireMode
from thunderserve.kvlink.codec import Int4Codec, Raw16Codec, codec_for
from thunderserve.kvlink.codec.float16 import from_float32, to_float32
from thunderserve.kvlink.protocol import Block, FrameError, NonFiniteKvError

if TYPE_CHECKING:
    from collections.abc import Callable

OUTLIERS = np.zeros(64, dtype=bool)
OUTLIERS[::20] = True


def relative_error(want: np.ndarray, got: np.ndarray) -> float:
    return float(np.sqrt(((want - got) ** 2).mean() / (want**2).mean()))


@pytest.fixture(params=["bfloat16", "float16"])
def layout(request: pytest.FixtureRequest) -> KvLayout:
    return KvLayout("tiny", 2, 2, 64, 4, request.param)


def test_raw16_is_exact_when_any_bits(layout: KvLayout) -> None:
    """Even NaN patterns come back as they were."""
    shape = layout.block_shape(2, 3)
    values = np.random.default_rng(0).integers(0, 2**16, shape, dtype=np.uint16)
    codec = Raw16Codec(layout)

    assert np.array_equal(codec.decode(codec.encode(values), 2, 3), values)


def test_int4_is_close_when_keys_have_outlier_channels(
    layout: KvLayout, make_cache: Callable[..., np.ndarray]
) -> None:
    """Outlier channels do not cost the others their precision: plain groups are at 0.5 here."""
    cache = make_cache(layout, 64)
    codec = Int4Codec(layout)

    got = to_float32(codec.decode(codec.encode(cache), 2, 64), layout.dtype)

    want = to_float32(cache, layout.dtype)
    keys, values = (want[:, 0], got[:, 0]), (want[:, 1], got[:, 1])
    assert relative_error(*keys) < 0.04
    assert relative_error(*(x[..., ~OUTLIERS] for x in keys)) < 0.1
    assert relative_error(*values) < 0.1


def test_int4_spends_few_bits_when_blocks_are_long(
    layout: KvLayout, make_cache: Callable[..., np.ndarray]
) -> None:
    """4 bits, half a bit of group scales, and 32 bits a channel over all tokens."""
    cache = make_cache(layout, 128)  # 512 tokens

    payload = Int4Codec(layout).encode(cache)

    assert payload.nbytes == Int4Codec(layout).payload_bytes(2, 128)
    assert payload.nbytes * 8 / cache.size < 4.6


def test_int4_is_deterministic_when_repeated(
    layout: KvLayout, make_cache: Callable[..., np.ndarray]
) -> None:
    """Faster implementations are held against it bit for bit."""
    cache = make_cache(layout, 8)

    assert Int4Codec(layout).encode(cache) == Int4Codec(layout).encode(cache.copy())


@pytest.mark.parametrize("value", [0.0, 1.0, -3.5, 1e-30])
def test_int4_keeps_constants_when_channels_do_not_vary(layout: KvLayout, value: float) -> None:
    """No division by a deviation or a range of zero."""
    shape = layout.block_shape(2, 16)
    cache = from_float32(np.full(shape, value, np.float32), layout.dtype)
    codec = Int4Codec(layout)

    got = to_float32(codec.decode(codec.encode(cache), 2, 16), layout.dtype)

    assert np.allclose(got, to_float32(cache, layout.dtype), rtol=0.01, atol=1e-6)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_int4_refuses_a_block_when_a_value_is_not_finite(
    layout: KvLayout, make_cache: Callable[..., np.ndarray], value: float
) -> None:
    """One such value would poison its whole channel."""
    cache = make_cache(layout, 4)
    cache[1, 1, 2, 3, 1, 5] = from_float32(np.array([value], np.float32), layout.dtype)[0]

    with pytest.raises(NonFiniteKvError):
        Int4Codec(layout).encode(cache)


def test_int4_refuses_a_block_when_squares_overflow(make_cache: Callable[..., np.ndarray]) -> None:
    """bfloat16 reaches further than the float32 square of its deviation."""
    layout = KvLayout("tiny", 2, 2, 64, 4, "bfloat16")
    cache = make_cache(layout, 4)
    cache[0, 0, 0, 0, 0, 0] = from_float32(np.array([1e30], np.float32), "bfloat16")[0]

    with pytest.raises(NonFiniteKvError, match="overflow"):
        Int4Codec(layout).encode(cache)


@pytest.mark.parametrize("codec_type", [Raw16Codec, Int4Codec])
def test_decode_refuses_a_payload_when_its_size_is_wrong(
    layout: KvLayout, codec_type: type[Raw16Codec | Int4Codec]
) -> None:
    """Sizes are checked before anything is read."""
    codec = codec_type(layout)
    payload = memoryview(bytes(codec.payload_bytes(2, 4) - 2))

    with pytest.raises(FrameError, match="bytes"):
        codec.decode(payload, 2, 4)


@pytest.mark.parametrize(("tokens", "mode"), [(1, "raw16"), (2, "raw16"), (4, "int4")])
def test_codec_is_the_smaller_one_when_blocks_are_short(tokens: int, mode: str) -> None:
    """A chunk's last token goes as it is: its statistics would be larger than itself."""
    layout = KvLayout("tiny", 2, 2, 64, 1, "bfloat16")

    assert codec_for(WireMode.INT4, layout, Block(0, 2, 0, tokens)).mode == mode
    assert codec_for(WireMode.RAW16, layout, Block(0, 2, 0, tokens)).mode == "raw16"


def test_int4_groups_stay_within_a_head_when_the_head_is_narrow() -> None:
    """So that heads can be told apart in the payload; an odd width cannot be packed."""
    assert Int4Codec(KvLayout("m", 1, 3, 80, 1, "bfloat16"))._group == 40
    with pytest.raises(FrameError, match="odd"):
        Int4Codec(KvLayout("m", 1, 3, 5, 1, "bfloat16"))


def test_bfloat16_rounds_to_even_when_between_two_values() -> None:
    """The same as hardware does it."""
    torch = pytest.importorskip("torch")
    values = np.random.default_rng(1).normal(size=4096).astype(np.float32)

    want = torch.from_numpy(values).to(torch.bfloat16).view(torch.int16).numpy().view(np.uint16)

    assert np.array_equal(from_float32(values, "bfloat16"), want)
