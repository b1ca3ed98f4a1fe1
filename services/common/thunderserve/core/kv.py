"""The layout of a KV cache: what two engines must share to exchange it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from thunderserve.core.errors import InvalidArgumentError

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["VALUE_BYTES", "KvLayout", "KvPart", "heads_of_rank", "parts_cover"]

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
    def page_head_bytes(self) -> int:
        """Keys and values of one page in one layer and one head."""
        return _KEYS_AND_VALUES * self.page_size_tokens * self.head_dim * VALUE_BYTES

    @property
    def page_layer_bytes(self) -> int:
        """Keys and values of one page in one layer."""
        return self.page_head_bytes * self.kv_head_count

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

    def block_shape(
        self, layer_count: int, page_count: int, head_count: int | None = None
    ) -> tuple[int, int, int, int, int, int]:
        """Shape of a block: (layers, keys|values, pages, page tokens, kv heads, head dim)."""
        heads = self.kv_head_count if head_count is None else head_count
        dim = self.head_dim
        return (layer_count, _KEYS_AND_VALUES, page_count, self.page_size_tokens, heads, dim)

    @property
    def whole(self) -> KvPart:
        """The part of an engine that has one rank."""
        return KvPart(0, self.layer_count, 0, self.kv_head_count)

    def of_heads(self, head_count: int) -> KvLayout:
        """The layout of some of the heads: what a codec needs for a block of them."""
        return replace(self, kv_head_count=head_count)

    def mismatch(self, other: KvLayout) -> str | None:
        """The first field that keeps two engines from exchanging pages, in words; None if none."""
        names = ("model_fingerprint", "layer_count", "kv_head_count", "head_dim")
        for name in (*names, "page_size_tokens", "dtype"):
            ours, theirs = getattr(self, name), getattr(other, name)
            if ours != theirs:
                return f"{name} is {ours!r} here and {theirs!r} there"
        return None


@dataclass(frozen=True, slots=True)
class KvPart:
    """What one rank of an engine holds of every page: a range of layers, a range of KV heads.

    Attributes:
        rank: Of `rank_count`; 0 also speaks for the engine where one must.
        copy: A lower rank holds the same: there are fewer KV heads than tensor-parallel ranks.
    """

    first_layer: int
    layer_count: int
    first_head: int
    head_count: int
    rank: int = 0
    rank_count: int = 1
    copy: bool = False

    def __post_init__(self) -> None:
        if min(self.first_layer, self.first_head) < 0 or min(self.layer_count, self.head_count) < 1:
            raise InvalidArgumentError(f"{self} is empty or starts below 0")
        if not 0 <= self.rank < self.rank_count:
            raise InvalidArgumentError(f"rank {self.rank} is not one of {self.rank_count}")


def heads_of_rank(kv_head_count: int, tp: int, tp_rank: int) -> tuple[int, int, bool]:
    """First KV head, number of heads, and whether a lower rank holds the same.

    Heads are dealt out in order. Where there are fewer heads than ranks, as many neighbouring
    ranks hold a copy of each; so do SGLang and Megatron.

    Raises:
        InvalidArgumentError: Neither number divides the other.
    """
    if kv_head_count % tp == 0:
        count = kv_head_count // tp
        return tp_rank * count, count, False
    copies, rest = divmod(tp, kv_head_count)
    if rest:
        raise InvalidArgumentError(
            f"{kv_head_count} KV heads cannot be dealt out to {tp} ranks: neither divides the other"
        )
    return tp_rank // copies, 1, tp_rank % copies > 0


def parts_cover(layout: KvLayout, parts: Sequence[KvPart]) -> bool:
    """True when every layer of every head lies in exactly one part that is no copy."""
    if any(
        part.first_layer + part.layer_count > layout.layer_count
        or part.first_head + part.head_count > layout.kv_head_count
        for part in parts
    ):
        return False
    held = [
        (layer, head)
        for part in parts
        if not part.copy
        for layer in range(part.first_layer, part.first_layer + part.layer_count)
        for head in range(part.first_head, part.first_head + part.head_count)
    ]
    return len(held) == len(set(held)) == layout.layer_count * layout.kv_head_count
