"""The layout of a KV cache: what two engines must share to exchange it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from thunderserve.core.errors import InvalidArgumentError

__all__ = ["VALUE_BYTES", "KvLayout"]

VALUE_BYTES = 2
_DTYPES = ("bfloat16", "float16")
_KEYS_AND_VALUES = 2


@dataclass(frozen=True, slots=True)
class KvLayout:
    """Keys and values of every layer, in pages of a fixed number of tokens.

    Attributes:
        model_fingerprint: Names the model's configuration; equal on both sides.
        kv_head_count: Over all tensor-parallel ranks.
        dtype: `bfloat16` or `float16`.
    """

    model_fingerprint: str
    layer_count: int
    kv_head_count: int
    head_dim: int
    page_size_tokens: int
    dtype: str
    tp: int = 1
    pp: int = 1

    def __post_init__(self) -> None:
        for name in ("layer_count", "kv_head_count", "head_dim", "page_size_tokens", "tp", "pp"):
            value = getattr(self, name)
            if value <= 0:
                raise InvalidArgumentError(f"{name} is {value}; it must be > 0", param=name)
        if self.dtype not in _DTYPES:
            raise InvalidArgumentError(
                f"KV dtype {self.dtype!r} is not one of {', '.join(_DTYPES)}", param="dtype"
            )

    @property
    def page_layer_bytes(self) -> int:
        """Keys and values of one page in one layer."""
        values = self.page_size_tokens * self.kv_head_count * self.head_dim
        return _KEYS_AND_VALUES * values * VALUE_BYTES

    @property
    def page_bytes(self) -> int:
        """Keys and values of one page in all layers."""
        return self.page_layer_bytes * self.layer_count

    @property
    def fingerprint(self) -> int:
        """64 bits that are equal when pages of one cache mean the same in the other.

        Parallel degrees are left out: pages travel whole, whoever holds which part.
        """
        parts = (self.model_fingerprint, self.layer_count, self.kv_head_count, self.head_dim)
        text = repr((*parts, self.page_size_tokens, self.dtype))
        return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")

    def block_shape(self, layer_count: int, page_count: int) -> tuple[int, int, int, int, int, int]:
        """Shape of a block: (layers, keys|values, pages, page tokens, kv heads, head dim)."""
        heads, dim = self.kv_head_count, self.head_dim
        return (layer_count, _KEYS_AND_VALUES, page_count, self.page_size_tokens, heads, dim)

    def mismatch(self, other: KvLayout) -> str | None:
        """The first field that keeps two engines from exchanging pages, in words; None if none."""
        names = ("model_fingerprint", "layer_count", "kv_head_count", "head_dim")
        for name in (*names, "page_size_tokens", "dtype"):
            ours, theirs = getattr(self, name), getattr(other, name)
            if ours != theirs:
                return f"{name} is {ours!r} here and {theirs!r} there"
        return None
