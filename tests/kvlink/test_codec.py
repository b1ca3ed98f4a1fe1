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


@pytest.mark.parametrize("pages", [16, 24, 25, 128])
def test_int4_spends_few_bits_when_blocks_are_long(
    layout: KvLayout, make_cache: Callable[..., np.ndarray], pages: int
) -> None:
    """4 bits and 32 more for a channel of 64 tokens; the last word is padded."""
    cache = make_cache(layout, pages)

    payload = Int4Codec(layout).encode(cache)

    assert payload.nbytes == Int4Codec(layout).payload_bytes(2, pages)
    assert payload.nbytes * 8 / cache.size <= 4.5 + 4 * 4 / (4 * pages)


def test_int4_is_deterministic_when_repeated(
    layout: KvLayout, make_cache: Callable[..., np.ndarray]
) -> None:
    """Faster implementations are held against it bit for bit."""
    cache = make_cache(layout, 8)

    assert Int4Codec(layout).encode(cache) == Int4Codec(layout).encode(cache.copy())


@pytest.mark.parametrize("value", [0.0, 1.0, -3.5, 1e-30])
def test_int4_keeps_constants_when_channels_do_not_vary(layout: KvLayout, value: float) -> None:
    """No division by a range of zero; a constant comes back as it was."""
    shape = layout.block_shape(2, 16)
    cache = from_float32(np.full(shape, value, np.float32), layout.dtype)
    codec = Int4Codec(layout)

    got = to_float32(codec.decode(codec.encode(cache), 2, 16), layout.dtype)

    want = to_float32(cache, layout.dtype)
    assert np.array_equal(got, np.where(np.abs(want) < 2.0**-100, 0, want))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_int4_refuses_a_block_when_a_value_is_not_finite(
    layout: KvLayout, make_cache: Callable[..., np.ndarray], value: float
) -> None:
    """One such value would poison its whole channel."""
    cache = make_cache(layout, 4)
    cache[1, 1, 2, 3, 1, 5] = from_float32(np.array([value], np.float32), layout.dtype)[0]

    with pytest.raises(NonFiniteKvError):
        Int4Codec(layout).encode(cache)


def test_int4_keeps_the_range_when_it_is_all_that_bfloat16_has() -> None:
    """The difference of its ends is larger than the largest float32."""
    layout = KvLayout("tiny", 1, 1, 16, 8, "bfloat16")
    cache = np.zeros(layout.block_shape(1, 2), np.uint16)
    cache[:, :, 0, 0], cache[:, :, 1, 0] = 0x7F7F, 0xFF7F
    codec = Int4Codec(layout)

    got = codec.decode(codec.encode(cache), 1, 2)

    assert np.array_equal(got[:, :, 0, 0], cache[:, :, 0, 0])
    assert np.array_equal(got[:, :, 1, 0], cache[:, :, 1, 0])


@pytest.mark.parametrize("codec_type", [Raw16Codec, Int4Codec])
def test_decode_refuses_a_payload_when_its_size_is_wrong(
    layout: KvLayout, codec_type: type[Raw16Codec | Int4Codec]
) -> None:
    """Sizes are checked before anything is read."""
    codec = codec_type(layout)
    payload = memoryview(bytes(codec.payload_bytes(2, 4) - 2))

    with pytest.raises(FrameError, match="bytes"):
        codec.decode(payload, 2, 4)


@pytest.mark.parametrize(("tokens", "mode"), [(1, "raw16"), (4, "raw16"), (5, "int4")])
def test_codec_is_the_smaller_one_when_blocks_are_short(tokens: int, mode: str) -> None:
    """A chunk's last tokens go as they are: scales and padding would be larger than themselves."""
    layout = KvLayout("tiny", 2, 2, 64, 1, "bfloat16")

    assert codec_for(WireMode.INT4, layout, Block(0, 2, 0, 1, 0, tokens)).mode == mode
    assert codec_for(WireMode.RAW16, layout, Block(0, 2, 0, 1, 0, tokens)).mode == "raw16"


def test_int4_refuses_a_layout_when_channels_are_odd() -> None:
    """Compiled kernels work on pairs."""
    with pytest.raises(FrameError, match="odd"):
        Int4Codec(KvLayout("m", 1, 3, 5, 1, "bfloat16"))


def test_codec_writes_into_given_memory_when_there_is_some(
    layout: KvLayout, make_cache: Callable[..., np.ndarray]
) -> None:
    """Buffers are the caller's to keep."""
    cache, codec = make_cache(layout, 5), Int4Codec(layout)
    packed, values = bytearray(codec.payload_bytes(2, 5) + 9), bytearray(cache.nbytes + 9)

    payload = codec.encode(cache, memoryview(packed))
    got = codec.decode(payload, 2, 5, memoryview(values))

    assert bytes(payload) == packed[: payload.nbytes] == codec.encode(cache)
    assert got.tobytes() == values[: cache.nbytes]
    assert packed[payload.nbytes :] == values[cache.nbytes :] == bytes(9)


def test_bfloat16_rounds_to_even_when_between_two_values() -> None:
    """The same as hardware does it."""
    torch = pytest.importorskip("torch")
    values = np.random.default_rng(1).normal(size=4096).astype(np.float32)

    want = torch.from_numpy(values).to(torch.bfloat16).view(torch.int16).numpy().view(np.uint16)

    assert np.array_equal(from_float32(values, "bfloat16"), want)
