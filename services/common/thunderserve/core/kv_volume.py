"""How many bytes a KV cache is, as engines hold it and as it crosses the network."""

from __future__ import annotations

from typing import TYPE_CHECKING

from thunderserve.core.request import WireMode

if TYPE_CHECKING:
    from thunderserve.core.model import ModelSpec

__all__ = ["INT4_BITS_PER_VALUE", "kv_bytes", "kv_wire_bytes", "wire_ratio"]

INT4_BITS_PER_VALUE = 4.5
"""4-bit codes, and a 16-bit scale and offset for every 64 values."""


def wire_ratio(mode: WireMode, dtype_bytes: int = 2) -> float:
    """Wire bytes for each byte that an engine holds; a sidecar's default mode is int4."""
    bits = 16.0 if mode is WireMode.RAW16 else INT4_BITS_PER_VALUE
    return min(1.0, bits / (8 * dtype_bytes))


def kv_bytes(model: ModelSpec, tokens: float) -> float:
    """Bytes that an engine holds for that many tokens."""
    return model.kv_bytes_per_token * tokens


def kv_wire_bytes(model: ModelSpec, tokens: float, mode: WireMode) -> float:
    """Bytes that cross the network for that many tokens, without frame headers.

    Source: ThunderServe (MLSys 2025), KV cache compression for the wire only.
    """
    return kv_bytes(model, tokens) * wire_ratio(mode, model.dtype_bytes)
