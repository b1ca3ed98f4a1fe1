"""Tokens and KV values as pure functions of the prefix, so that anybody can check them."""

from __future__ import annotations

import hashlib
import math
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import numpy.typing as npt

    from thunderserve.core.kv import KvLayout

__all__ = ["Prefix", "kv_matches", "kv_values", "page_count"]

# A real tokenizer's first ids are special tokens, which would end an answer.
_SPECIAL_TOKENS = 16
# Values lie on 8 levels of [-1, 1]: 4-bit quantisation errs by less than half a level, so that
# the levels survive every wire mode and are compared exactly.
_LEVELS = 8
_HALF = (_LEVELS - 1) / 2
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


class Prefix:
    """A hash over the tokens so far; it grows token by token."""

    def __init__(self, tokens: Iterable[int] = ()) -> None:
        self._hash = hashlib.blake2b(digest_size=8)
        self.extend(tokens)

    def extend(self, tokens: Iterable[int]) -> None:
        """Append tokens."""
        self._hash.update(np.fromiter(tokens, dtype="<u4").tobytes())

    def append(self, token: int) -> None:
        """Append one token."""
        self._hash.update(token.to_bytes(4, "little"))

    def next_token(self, vocab_tokens: int) -> int:
        """The token that follows."""
        special = min(_SPECIAL_TOKENS, vocab_tokens - 1)
        return special + self.seed % (vocab_tokens - special)

    @property
    def seed(self) -> int:
        """64 bits that stand for the prefix."""
        return int.from_bytes(self._hash.digest(), "little")


def page_count(tokens: int, layout: KvLayout) -> int:
    """Pages that so many tokens fill, the last one perhaps in part."""
    return -(-tokens // layout.page_size_tokens)


def kv_values(tokens: Sequence[int], layout: KvLayout) -> npt.NDArray[np.uint16]:
    """The cache of a prompt: (layers, keys|values, pages, page tokens, kv heads, head dim) bits."""
    values = _levels(tokens, layout) / _HALF - 1
    return _bits(values.astype(np.float32), layout.dtype)


def kv_matches(values: npt.NDArray[np.uint16], tokens: Sequence[int], layout: KvLayout) -> bool:
    """Whether a received cache is the prompt's, up to what 4-bit quantisation changes."""
    levels = np.rint((_floats(values, layout.dtype) + 1) * _HALF).astype(np.int16)
    return bool(np.array_equal(levels, _levels(tokens, layout)))


def _levels(tokens: Sequence[int], layout: KvLayout) -> npt.NDArray[np.uint8]:
    """Each page depends on every token up to its end, as a real cache does."""
    size, prefix = layout.page_size_tokens, Prefix()
    seeds: list[int] = []
    for start in range(0, len(tokens), size):
        prefix.extend(tokens[start : start + size])
        seeds.append(prefix.seed)
    shape = layout.block_shape(layout.layer_count, 1)
    places = np.arange(math.prod(shape), dtype=np.uint64)
    pages = _mixed(np.array(seeds, np.uint64)[:, np.newaxis] + places * _GOLDEN)
    return np.moveaxis(pages.reshape(len(seeds), *shape), 0, 2).reshape(
        layout.block_shape(layout.layer_count, len(seeds))
    )


def _mixed(values: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint8]:
    """3 well mixed bits of each value. Source: the finaliser of SplitMix64, shortened."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    return ((values ^ (values >> np.uint64(27))) >> np.uint64(61)).astype(np.uint8)


def _bits(values: npt.NDArray[np.float32], dtype: str) -> npt.NDArray[np.uint16]:
    if dtype == "float16":
        return values.astype(np.float16).view(np.uint16)
    bits = values.view(np.uint32)
    return ((bits + 0x8000) >> 16).astype(np.uint16)


def _floats(bits: npt.NDArray[np.uint16], dtype: str) -> npt.NDArray[np.float32]:
    if dtype == "float16":
        return bits.view(np.float16).astype(np.float32)
    return (bits.astype(np.uint32) << 16).view(np.float32)
