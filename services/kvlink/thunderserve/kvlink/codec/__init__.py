"""How 16-bit KV values travel: exactly, or as 4-bit codes with scales."""

from __future__ import annotations

from thunderserve.kvlink.codec.codec import Codec, Values, codec_for
from thunderserve.kvlink.codec.int4 import Int4Codec
from thunderserve.kvlink.codec.raw16 import Raw16Codec

__all__ = ["Codec", "Int4Codec", "Raw16Codec", "Values", "codec_for"]
