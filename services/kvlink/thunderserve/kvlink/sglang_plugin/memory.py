"""The engine's KV pool and metadata, read and written by page number.

SGLang hands a transfer backend raw pointers: for each layer a key and a value buffer of
(pages, page tokens, kv heads, head dim), and one CPU buffer for each kind of metadata.
"""

from __future__ import annotations

import ctypes
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from thunderserve.core.errors import TransferError

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from thunderserve.core.kv import KvLayout, KvPart
    from thunderserve.kvlink.protocol import Block

__all__ = ["AuxMemory", "PageMemory", "tensor_at"]


class PageMemory:
    """Pages of the layers and heads that one rank holds, on a CPU or a CUDA device.

    Args:
        layout: Of the whole cache.
        part: What the rank holds of it.
        buffers: Keys of every layer it holds, then values of those: (pages, page tokens, kv heads,
            head dim) int16, the bit patterns of the layout's dtype.
    """

    def __init__(self, layout: KvLayout, part: KvPart, buffers: Sequence[torch.Tensor]) -> None:
        self.layout = layout
        self.part = part
        self._keys = buffers[: part.layer_count]
        self._values = buffers[part.layer_count :]
        self._device = buffers[0].device
        # Beside the engine's own streams, so that a transfer waits for no forward pass.
        self._stream: torch.cuda.Stream | None = None
        if self._device.type == "cuda":
            self._stream = torch.cuda.Stream(self._device)  # type: ignore[no-untyped-call]  # untyped in torch

    def read(self, block: Block, pages: npt.NDArray[np.int32], out: npt.NDArray[np.uint16]) -> None:
        """Gather pages.

        Args:
            block: Layers of the part, all heads of it; its page count is that of `pages`.
            pages: Numbers in the pool.
            out: Filled on return: (layers, keys|values, pages, page tokens, kv heads, head dim)
                uint16.
        """
        host = torch.from_numpy(out.view(np.int16))
        with torch.cuda.stream(self._stream):
            index = torch.from_numpy(pages.astype(np.int64)).to(self._device)
            gathered = host
            if self._stream is not None:
                gathered = torch.empty(host.shape, dtype=torch.int16, device=self._device)
            for place, layer in enumerate(self._places(block)):
                torch.index_select(self._keys[layer], 0, index, out=gathered[place, 0])
                torch.index_select(self._values[layer], 0, index, out=gathered[place, 1])
            if gathered is not host:
                host.copy_(gathered)  # waits for the stream

    def write(
        self, block: Block, pages: npt.NDArray[np.int32], values: npt.NDArray[np.uint16]
    ) -> None:
        """Scatter pages; on return the engine may read them.

        The shape is that of `read`; the block may be of some of the part's heads.
        """
        first = block.first_head - self.part.first_head
        heads = slice(first, first + block.head_count)
        with torch.cuda.stream(self._stream):
            index = torch.from_numpy(pages.astype(np.int64)).to(self._device)
            source = torch.from_numpy(values.view(np.int16)).to(self._device)
            for place, layer in enumerate(self._places(block)):
                self._keys[layer][:, :, heads].index_copy_(0, index, source[place, 0])
                self._values[layer][:, :, heads].index_copy_(0, index, source[place, 1])
        if self._stream is not None:
            self._stream.synchronize()

    def _places(self, block: Block) -> range:
        """Of the block's layers among the buffers."""
        first = block.first_layer - self.part.first_layer
        return range(first, first + block.layer_count)


@dataclass(frozen=True, slots=True)
class AuxMemory:
    """SGLang's metadata of requests: one row a request in each of several CPU buffers."""

    pointers: tuple[int, ...]
    row_bytes: tuple[int, ...]

    def read(self, row: int) -> bytes:
        """The row of all buffers, one after the other."""
        parts = zip(self.pointers, self.row_bytes, strict=True)
        return b"".join(ctypes.string_at(start + row * size, size) for start, size in parts)

    def write(self, row: int, data: bytes) -> None:
        """Put a row back; raises TransferError when the other engine has other buffers."""
        if len(data) != sum(self.row_bytes):
            raise TransferError(
                f"{len(data)} bytes of metadata came, {sum(self.row_bytes)} were expected: "
                "start both engines with the same SGLang version and options"
            )
        offset = 0
        for start, size in zip(self.pointers, self.row_bytes, strict=True):
            ctypes.memmove(start + row * size, data[offset : offset + size], size)
            offset += size


def tensor_at(pointer: int, shape: tuple[int, ...], device: torch.device) -> torch.Tensor:
    """A view of memory that somebody else owns and keeps: int16, contiguous."""
    if device.type == "cuda":
        return torch.as_tensor(_CudaArray(pointer, shape), device=device)
    memory = (ctypes.c_int16 * math.prod(shape)).from_address(pointer)
    return torch.frombuffer(memory, dtype=torch.int16).view(shape)


class _CudaArray:
    """Describes device memory the way that torch and others read it."""

    def __init__(self, pointer: int, shape: tuple[int, ...]) -> None:
        self.__cuda_array_interface__ = {
            "data": (pointer, False),
            "shape": shape,
            "typestr": "<i2",
            "strides": None,
            "version": 3,
        }
