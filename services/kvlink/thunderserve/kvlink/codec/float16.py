"""Bit patterns of bfloat16 and float16 to float32 and back; numpy knows no bfloat16."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

__all__ = ["from_float32", "to_float32"]


def to_float32(bits: npt.NDArray[np.uint16], dtype: str) -> npt.NDArray[np.float32]:
    """The values of bit patterns, same shape; exact."""
    if dtype == "float16":
        return bits.view(np.float16).astype(np.float32)
    wide = bits.astype(np.uint32)
    wide <<= 16
    return wide.view(np.float32)


def from_float32(values: npt.NDArray[np.float32], dtype: str) -> npt.NDArray[np.uint16]:
    """The nearest bit patterns, ties to even, same shape."""
    if dtype == "float16":
        return values.astype(np.float16).view(np.uint16)
    bits = np.ascontiguousarray(values).view(np.uint32)
    rounded = bits + (np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1)))
    return (rounded >> np.uint32(16)).astype(np.uint16)
