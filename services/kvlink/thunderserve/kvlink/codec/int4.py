"""4-bit codes: the range of each channel over 64 tokens, cut into 15 steps.

Keys have a few channels that are 10 to 25 times the others. Where a scale serves many channels of
one token, its 16 levels are spent on those few; a scale for each channel is not troubled by them.
KIVI does so for keys; here values, too, come out better than with scales per token:
`benchmarks/codec_schemes.py` compares both and others on a model's own cache, docs/kvlink.md has
the table. Per value 4 bits; per group and channel the least and the greatest value, 32 bits for
64 tokens: 4.5 bits a value.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import numpy as np

from thunderserve.core.request import WireMode
from thunderserve.kvlink.codec.backends import best_backend
from thunderserve.kvlink.codec.packing import packed_bytes
from thunderserve.kvlink.protocol.errors import FrameError

if TYPE_CHECKING:
    import numpy.typing as npt

    from thunderserve.core.kv import KvLayout
    from thunderserve.kvlink.codec.backends import Backend

__all__ = ["Int4Codec"]

_Item = TypeVar("_Item", bound=np.generic)


class Int4Codec:
    """Blocks of one layout; `packing.py` draws the payload."""

    mode = WireMode.INT4

    def __init__(self, layout: KvLayout, backend: Backend | None = None) -> None:
        self._layout = layout
        self._channels = layout.kv_head_count * layout.head_dim
        if self._channels % 2:
            raise FrameError(f"{self._channels} channels are an odd number; use raw16")
        self._backend = backend or best_backend()

    def payload_bytes(self, layer_count: int, page_count: int) -> int:
        """Codes and the ends of every group."""
        return packed_bytes(*self._shape(layer_count, page_count))

    def encode(self, values: npt.NDArray[np.uint16], out: memoryview | None = None) -> memoryview:
        """(layers, 2, pages, page tokens, kv heads, head dim) uint16 to bytes.

        Args:
            values: Bit patterns.
            out: Memory for the result, `payload_bytes` or more; allocated when None.

        Raises:
            NonFiniteKvError: A value is NaN or infinite.
        """
        shape = self._shape(values.shape[0], values.shape[2])
        rows = np.ascontiguousarray(values).reshape(shape)
        packed = _array(out, packed_bytes(*shape), np.dtype(np.uint8))
        self._backend.quantise(rows, self._layout.dtype, packed)
        return packed.data

    def decode(
        self,
        payload: memoryview,
        layer_count: int,
        page_count: int,
        out: memoryview | None = None,
    ) -> npt.NDArray[np.uint16]:
        """Bytes to (layers, 2, pages, page tokens, kv heads, head dim) uint16, all finite.

        Args:
            payload: `payload_bytes` bytes.
            layer_count: Of the block.
            page_count: Of the block.
            out: Memory for the result, as large as the values or larger; allocated when None.

        Raises:
            FrameError: Another size, or scales that no codec writes.
        """
        shape = self._shape(layer_count, page_count)
        expected = packed_bytes(*shape)
        if payload.nbytes != expected:
            raise FrameError(f"an int4 payload of {payload.nbytes} bytes; expected {expected}")
        values = _array(out, shape[0] * shape[1] * shape[2], np.dtype(np.uint16))
        packed = np.frombuffer(payload, dtype=np.uint8)
        self._backend.dequantise(packed, self._layout.dtype, values.reshape(shape))
        return values.reshape(self._layout.block_shape(layer_count, page_count))

    def _shape(self, layer_count: int, page_count: int) -> tuple[int, int, int]:
        """Rows of (layer, keys|values), tokens, channels."""
        return 2 * layer_count, page_count * self._layout.page_size_tokens, self._channels


def _array(out: memoryview | None, count: int, dtype: np.dtype[_Item]) -> npt.NDArray[_Item]:
    """`count` items of the given memory, or of new memory."""
    if out is None:
        return np.empty(count, dtype=dtype)
    return np.frombuffer(out, dtype=dtype, count=count)
