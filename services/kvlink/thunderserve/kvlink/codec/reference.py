"""The int4 codec in numpy: what every other backend equals bit for bit.

Nothing in it depends on the order in which values are read, and no result on whether a machine
fuses a multiplication with the addition after it, or flushes subnormal numbers:

- a group's scales are its least and greatest value, exact 16-bit patterns;
- a half step keeps 20 bits of its significand, so that a level, an odd number from -15 to 15,
  times it is exact; products with 0.5 are exact too;
- a group whose values are all below 2^-100 in size is zero.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from thunderserve.kvlink.codec.float16 import from_float32, to_float32
from thunderserve.kvlink.codec.packing import WORD_TOKENS, group_ranges, group_words
from thunderserve.kvlink.protocol.errors import FrameError, NonFiniteKvError

if TYPE_CHECKING:
    import numpy.typing as npt

__all__ = ["dequantise", "quantise"]

_LEVELS = 15
_EXPONENT = {"bfloat16": 0x7F80, "float16": 0x7C00}
_SMALLEST = {"bfloat16": 0x0D80, "float16": 0x0001}  # 2^-100, or the least above zero
_SHIFTS = np.arange(0, 4 * WORD_TOKENS, 4, dtype=np.uint32)[:, None]


def quantise(values: npt.NDArray[np.uint16], dtype: str, out: npt.NDArray[np.uint8]) -> None:
    """(rows, tokens, channels) bit patterns into `payload_bytes` bytes.

    Raises:
        NonFiniteKvError: A value is NaN or infinite.
    """
    records = _records(out, *values.shape)
    for (first, last), (ends, words) in zip(group_ranges(values.shape[1]), records, strict=True):
        group = values[:, first:last]
        ends[:] = _canonical(_ends(group), dtype)
        if not _finite(ends, dtype):
            raise NonFiniteKvError("the KV cache holds NaN or infinity; int4 cannot carry it")
        words[:] = _pack(_codes(to_float32(group, dtype), to_float32(ends, dtype)))


def dequantise(payload: npt.NDArray[np.uint8], dtype: str, out: npt.NDArray[np.uint16]) -> None:
    """A payload's bytes into (rows, tokens, channels) bit patterns, all of them finite.

    Raises:
        FrameError: A scale is NaN, infinite, or its least value above its greatest.
    """
    records = _records(payload, *out.shape)
    for (first, last), (stored, words) in zip(group_ranges(out.shape[1]), records, strict=True):
        ends = _canonical(stored, dtype)
        scales = to_float32(ends, dtype)
        if not _finite(ends, dtype) or (scales[:, 0] > scales[:, 1]).any():
            raise FrameError("an int4 payload with scales that no codec writes")
        least, greatest = scales[:, :1], scales[:, 1:]
        levels = _unpack(words, last - first) * np.float32(2) - np.float32(_LEVELS)
        middle = least * np.float32(0.5) + greatest * np.float32(0.5)
        out[:, first:last] = from_float32(levels * _half_step(least, greatest) + middle, dtype)


def _records(
    payload: npt.NDArray[np.uint8], rows: int, tokens: int, channels: int
) -> list[tuple[npt.NDArray[np.uint16], npt.NDArray[np.uint32]]]:
    """Views of each group: ends (rows, 2, channels), words of codes (rows, words, channels)."""
    lines = payload.reshape(rows, -1, 4 * channels)
    views, line = [], 0
    for first, last in group_ranges(tokens):
        words = lines[:, line + 1 : line + 1 + group_words(last - first)].view(np.uint32)
        views.append((lines[:, line].view(np.uint16).reshape(rows, 2, channels), words))
        line += 1 + words.shape[1]
    return views


def _ends(group: npt.NDArray[np.uint16]) -> npt.NDArray[np.uint16]:
    """Least and greatest bit pattern of each channel, NaN beyond infinity: (rows, 2, channels)."""
    order = _ordered(group.view(np.int16))
    ends = np.stack((order.min(axis=1), order.max(axis=1)), axis=1)
    return _ordered(ends).view(np.uint16)


def _ordered(bits: npt.NDArray[np.int16]) -> npt.NDArray[np.int16]:
    """Sign and size to a number that orders as the floats do, and back."""
    return bits ^ ((bits >> np.int16(15)) & np.int16(0x7FFF))


def _canonical(ends: npt.NDArray[np.uint16], dtype: str) -> npt.NDArray[np.uint16]:
    """Zero for -0 and for a group of which nothing is left above `_SMALLEST`."""
    size = (ends & np.uint16(0x7FFF)).max(axis=1, keepdims=True)
    zero = (size < _SMALLEST[dtype]) | (ends == np.uint16(0x8000))
    return np.where(zero, np.uint16(0), ends)


def _finite(ends: npt.NDArray[np.uint16], dtype: str) -> bool:
    return bool(((ends & np.uint16(0x7FFF)) < _EXPONENT[dtype]).all())


def _half_step(
    least: npt.NDArray[np.float32], greatest: npt.NDArray[np.float32]
) -> npt.NDArray[np.float32]:
    """Half of a 15th of the range; halves, so that bfloat16's whole range does not overflow."""
    half_range = greatest * np.float32(0.5) - least * np.float32(0.5)
    exact = half_range * np.float32(1 / _LEVELS)
    return (exact.view(np.uint32) & np.uint32(0xFFFFFFF0)).view(np.float32)


def _codes(x: npt.NDArray[np.float32], ends: npt.NDArray[np.float32]) -> npt.NDArray[np.uint32]:
    """(rows, tokens, channels) numbers 0 to 15; no clipping, the ends are the extremes."""
    least, greatest = ends[:, :1], ends[:, 1:]
    step = _half_step(least, greatest)
    inverse = np.divide(np.float32(1), step, out=np.zeros_like(step), where=step > 0)
    offset = x * np.float32(0.5) - least * np.float32(0.5)
    codes: npt.NDArray[np.uint32] = np.rint(offset * inverse).astype(np.uint32)
    return codes


def _pack(codes: npt.NDArray[np.uint32]) -> npt.NDArray[np.uint32]:
    rows, tokens, channels = codes.shape
    padded = np.zeros((rows, group_words(tokens) * WORD_TOKENS, channels), dtype=np.uint32)
    padded[:, :tokens] = codes
    lanes = padded.reshape(rows, -1, WORD_TOKENS, channels) << _SHIFTS
    words: npt.NDArray[np.uint32] = np.bitwise_or.reduce(lanes, axis=2)
    return words


def _unpack(words: npt.NDArray[np.uint32], tokens: int) -> npt.NDArray[np.float32]:
    rows, _, channels = words.shape
    codes = (words[:, :, None] >> _SHIFTS) & np.uint32(_LEVELS)
    return codes.reshape(rows, -1, channels)[:, :tokens].astype(np.float32)
