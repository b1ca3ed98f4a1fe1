"""The interface of a codec and the choice of one for a block."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import numpy as np
import numpy.typing as npt

from thunderserve.core.request import WireMode
from thunderserve.kvlink.codec.int4 import Int4Codec
from thunderserve.kvlink.codec.raw16 import Raw16Codec

if TYPE_CHECKING:
    from thunderserve.core.kv import KvLayout
    from thunderserve.kvlink.protocol import Block

__all__ = ["Codec", "Values", "codec_for"]

Values = npt.NDArray[np.uint16]


class Codec(Protocol):
    """16-bit values to payload bytes and back, for blocks of one layout.

    Values are bit patterns: (layers, keys|values, pages, page tokens, kv heads, head dim), uint16.
    """

    @property
    def mode(self) -> WireMode:
        """The wire mode that frames of this codec carry."""

    def payload_bytes(self, layer_count: int, page_count: int) -> int:
        """Size of an encoded block."""

    def encode(self, values: Values, out: memoryview | None = None) -> memoryview:
        """The payload of a block; `out` is memory that it may be written to.

        Raises:
            NonFiniteKvError: NaN or infinity, in a codec that cannot carry them.
        """

    def decode(
        self,
        payload: memoryview,
        layer_count: int,
        page_count: int,
        out: memoryview | None = None,
    ) -> Values:
        """The block of a payload, in the payload's memory, in `out`, or in new memory.

        Raises:
            FrameError: Another size than the block's, or bytes that no codec writes.
        """


def codec_for(mode: WireMode, layout: KvLayout, block: Block) -> Codec:
    """The codec that carries `block` in a transfer of `mode`: never larger than the raw values.

    A group's ends cost as much as two tokens of it, and codes come in eights, so a block of very
    few tokens is smaller as it is; each frame says which codec made it.
    """
    raw = Raw16Codec(layout)
    if mode is WireMode.RAW16:
        return raw
    packed = Int4Codec(layout)
    sizes = [c.payload_bytes(block.layer_count, block.page_count) for c in (packed, raw)]
    return packed if sizes[0] < sizes[1] else raw
