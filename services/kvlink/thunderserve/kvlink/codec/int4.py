"""4-bit codes: channels normalised over the block's tokens, then groups within a token.

A key cache has a few channels that are 10 to 25 times the others, of constant sign. A scale per
token and group spends its 16 levels on them and ruins the rest; taking each channel's mean and
deviation out first leaves groups of like values: tests/kvlink/test_codec.py has such keys, and
benchmarks/kv_quality.py a real model's. The scheme's cousins are KIVI (per-channel keys) and the
paper's own 4-bit transfer (ThunderServe, MLSys 2025).

Per value 4 bits; per group of 64 values a float16 step and a float16 least value (0.5 bits a
value); per channel and block a bfloat16 mean and a bfloat16 deviation (32 bits / tokens).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from thunderserve.core.request import WireMode
from thunderserve.kvlink.codec.float16 import from_float32, has_non_finite, to_float32
from thunderserve.kvlink.protocol import FrameError, NonFiniteKvError

if TYPE_CHECKING:
    import numpy.typing as npt

    from thunderserve.core.kv import KvLayout

__all__ = ["GROUP_VALUES", "Int4Codec"]

GROUP_VALUES = 64
_LEVELS = 15
_HALF_BYTES = 2


@dataclass(frozen=True, slots=True)
class _Sizes:
    """Shape of a block as the codec sees it: rows are (layer, keys|values)."""

    rows: int
    tokens: int
    channels: int
    group: int

    @property
    def groups(self) -> int:
        """In one token."""
        return self.channels // self.group

    @property
    def sections(self) -> tuple[int, int, int]:
        """Bytes of codes, of the groups' (step, least), and of the channels' (mean, deviation)."""
        codes = self.rows * self.tokens * self.channels // 2
        group_bytes = 2 * _HALF_BYTES * self.rows * self.tokens * self.groups
        return codes, group_bytes, 2 * _HALF_BYTES * self.rows * self.channels


class Int4Codec:
    """The reference that faster implementations must equal bit for bit.

    Payload: codes (rows, tokens, channels/2) uint8, the even channel in the low nibble; then
    (2, rows, tokens, groups) float16: step, least; then (2, rows, channels) bfloat16: mean,
    deviation. Little-endian.
    """

    mode = WireMode.INT4

    def __init__(self, layout: KvLayout) -> None:
        self._layout = layout
        self._group = _group_values(layout.head_dim)

    def payload_bytes(self, layer_count: int, page_count: int) -> int:
        """Codes, group scales and channel statistics."""
        return sum(self._sizes(layer_count, page_count).sections)

    def encode(self, values: npt.NDArray[np.uint16]) -> memoryview:
        """(layers, 2, pages, page tokens, kv heads, head dim) uint16 to bytes.

        Raises:
            NonFiniteKvError: A value is NaN, infinite, or too large for its square.
        """
        if has_non_finite(values, self._layout.dtype):
            raise NonFiniteKvError("the KV cache holds NaN or infinity; int4 cannot carry it")
        sizes = self._sizes(values.shape[0], values.shape[2])
        x = to_float32(values.reshape(sizes.rows, sizes.tokens, sizes.channels), self._layout.dtype)
        statistics = _normalise(x)
        codes, scales = _quantise(x.reshape(sizes.rows, sizes.tokens, sizes.groups, sizes.group))
        parts = (codes, scales.view(np.uint8), statistics.view(np.uint8))
        return np.concatenate([part.reshape(-1) for part in parts]).data

    def decode(
        self, payload: memoryview, layer_count: int, page_count: int
    ) -> npt.NDArray[np.uint16]:
        """Bytes to (layers, 2, pages, page tokens, kv heads, head dim) uint16."""
        sizes = self._sizes(layer_count, page_count)
        ends = np.cumsum(sizes.sections)
        if payload.nbytes != ends[-1]:
            raise FrameError(f"an int4 payload of {payload.nbytes} bytes; expected {ends[-1]}")
        data = np.frombuffer(payload, dtype=np.uint8)
        scales = data[ends[0] : ends[1]].view(np.float16).astype(np.float32)
        statistics = to_float32(data[ends[1] :].view(np.uint16), "bfloat16")
        mean, deviation = statistics.reshape(2, sizes.rows, 1, sizes.channels)
        step, least = scales.reshape(2, sizes.rows, sizes.tokens, sizes.groups, 1)
        x = _unpack(data[: ends[0]]).reshape(sizes.rows, sizes.tokens, sizes.groups, sizes.group)
        x *= step
        x += least
        flat = x.reshape(sizes.rows, sizes.tokens, sizes.channels)
        flat *= deviation
        flat += mean
        shape = self._layout.block_shape(layer_count, page_count)
        return from_float32(flat, self._layout.dtype).reshape(shape)

    def _sizes(self, layer_count: int, page_count: int) -> _Sizes:
        layout = self._layout
        tokens = page_count * layout.page_size_tokens
        return _Sizes(2 * layer_count, tokens, layout.kv_head_count * layout.head_dim, self._group)


def _normalise(x: npt.NDArray[np.float32]) -> npt.NDArray[np.uint16]:
    """Take mean and deviation out of each channel, in place.

    Args:
        x: (rows, tokens, channels) float32.

    Returns:
        (2, rows, channels): bfloat16 bits of mean and deviation. The rounded ones are taken
        out, so that rounding them costs nothing.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        mean = from_float32(x.mean(axis=1), "bfloat16")
        x -= to_float32(mean, "bfloat16")[:, None, :]
        deviation = np.sqrt(np.einsum("rtc,rtc->rc", x, x) / np.float32(x.shape[1]))
    if not np.isfinite(deviation).all():
        raise NonFiniteKvError("the KV cache holds values whose squares overflow float32")
    deviation[deviation < np.finfo(np.float32).tiny] = 1.0
    rounded = from_float32(deviation, "bfloat16")
    x /= to_float32(rounded, "bfloat16")[:, None, :]
    return np.stack([mean, rounded])


def _quantise(
    x: npt.NDArray[np.float32],
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.float16]]:
    """(rows, tokens, groups, group) float32 to packed codes and (2, rows, tokens, groups)."""
    low = x.min(axis=-1)
    least = low.astype(np.float16)
    step = ((x.max(axis=-1) - least.astype(np.float32)) / np.float32(_LEVELS)).astype(np.float16)
    wide = step.astype(np.float32)
    inverse = np.divide(np.float32(1), wide, out=np.zeros_like(wide), where=wide > 0)
    x -= least.astype(np.float32)[..., None]
    x *= inverse[..., None]
    np.rint(x, out=x)
    np.clip(x, 0, _LEVELS, out=x)
    codes = x.astype(np.uint8).reshape(-1, 2)
    return codes[:, 0] | (codes[:, 1] << np.uint8(4)), np.stack([step, least])


def _unpack(packed: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    codes = np.empty((packed.size, 2), dtype=np.float32)
    codes[:, 0] = packed & np.uint8(_LEVELS)
    codes[:, 1] = packed >> np.uint8(4)
    return codes


def _group_values(head_dim: int) -> int:
    """The largest even divisor of the head's width up to `GROUP_VALUES`; no group spans heads."""
    sizes = [n for n in range(2, GROUP_VALUES + 1, 2) if head_dim % n == 0]
    if not sizes:
        raise FrameError(f"head_dim {head_dim} is odd; int4 packs two values a byte, use raw16")
    return max(sizes)
