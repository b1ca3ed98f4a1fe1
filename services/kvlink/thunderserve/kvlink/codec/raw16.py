"""The 16-bit values as they are: exact, and the oracle of every other codec."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from thunderserve.core.request import WireMode
from thunderserve.kvlink.protocol import FrameError

if TYPE_CHECKING:
    import numpy.typing as npt

    from thunderserve.core.kv import KvLayout

__all__ = ["Raw16Codec"]


class Raw16Codec:
    """Copies nothing in either direction."""

    mode = WireMode.RAW16

    def __init__(self, layout: KvLayout) -> None:
        self._layout = layout

    def payload_bytes(self, layer_count: int, page_count: int) -> int:
        """Two bytes a value."""
        return self._layout.page_layer_bytes * layer_count * page_count

    def encode(self, values: npt.NDArray[np.uint16], out: memoryview | None = None) -> memoryview:
        """The values' own memory when it is contiguous, in the machine's (little) byte order."""
        del out  # nothing is written
        return np.ascontiguousarray(values).reshape(-1).data.cast("B")

    def decode(
        self,
        payload: memoryview,
        layer_count: int,
        page_count: int,
        out: memoryview | None = None,
    ) -> npt.NDArray[np.uint16]:
        """A view of the payload."""
        del out  # nothing is written
        if payload.nbytes != self.payload_bytes(layer_count, page_count):
            raise FrameError(f"a raw16 payload of {payload.nbytes} bytes for {page_count} pages")
        values = np.frombuffer(payload, dtype=np.uint16)
        return values.reshape(self._layout.block_shape(layer_count, page_count))
