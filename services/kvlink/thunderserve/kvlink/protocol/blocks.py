"""Blocks: boxes of (layers, KV heads, pages) that travel as one frame.

A block's numbers are those of the whole model and of the whole request, whoever holds which part
of them: an engine's rank takes from a block what lies within its own part.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from thunderserve.core.errors import InvalidArgumentError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from thunderserve.core.kv import KvLayout, KvPart

__all__ = ["Block", "block_of_part", "split_block"]

_EVERYTHING = slice(None)


@dataclass(frozen=True, slots=True)
class Block:
    """Layers, heads, pages: half-open ranges; a page's number is its place within the request."""

    first_layer: int
    layer_count: int
    first_head: int
    head_count: int
    first_page: int
    page_count: int

    def __post_init__(self) -> None:
        firsts = (self.first_layer, self.first_head, self.first_page)
        if min(firsts) < 0 or min(self.layer_count, self.head_count, self.page_count) < 1:
            raise InvalidArgumentError(f"{self} is empty or starts below 0")

    @property
    def end_layer(self) -> int:
        """The layer after the last one."""
        return self.first_layer + self.layer_count

    @property
    def end_head(self) -> int:
        """The head after the last one."""
        return self.first_head + self.head_count

    @property
    def end_page(self) -> int:
        """The page after the last one."""
        return self.first_page + self.page_count

    def raw_bytes(self, layout: KvLayout) -> int:
        """Size of its 16-bit values."""
        return layout.page_head_bytes * self.layer_count * self.head_count * self.page_count

    def shape(self, layout: KvLayout) -> tuple[int, int, int, int, int, int]:
        """Shape of its values: (layers, keys|values, pages, page tokens, kv heads, head dim)."""
        return layout.block_shape(self.layer_count, self.page_count, self.head_count)

    def slices(self, outer: Block | None = None) -> tuple[slice, slice, slice, slice, slice]:
        """Where its values lie within those of `outer`, which encloses it, or of a whole cache."""
        layer, head, page = self.first_layer, self.first_head, self.first_page
        if outer is not None:
            layer -= outer.first_layer
            head -= outer.first_head
            page -= outer.first_page
        return (
            slice(layer, layer + self.layer_count),
            _EVERYTHING,
            slice(page, page + self.page_count),
            _EVERYTHING,
            slice(head, head + self.head_count),
        )

    def intersection(self, part: KvPart) -> Block | None:
        """What a rank takes of it; None when nothing."""
        layer, head = max(self.first_layer, part.first_layer), max(self.first_head, part.first_head)
        layers = min(self.end_layer, part.first_layer + part.layer_count) - layer
        heads = min(self.end_head, part.first_head + part.head_count) - head
        if layers < 1 or heads < 1:
            return None
        return Block(layer, layers, head, heads, self.first_page, self.page_count)


def block_of_part(part: KvPart, first_page: int, page_count: int) -> Block:
    """Pages of everything that a rank holds."""
    layers, heads = (part.first_layer, part.layer_count), (part.first_head, part.head_count)
    return Block(*layers, *heads, first_page, page_count)


def split_block(layout: KvLayout, block: Block, max_bytes: int) -> Iterator[Block]:
    """Cut a block so that no part holds more than `max_bytes` of 16-bit values.

    Layers are cut first: a codec gains from many tokens of one channel, never from many layers.

    Raises:
        InvalidArgumentError: One page of one layer is larger than `max_bytes`.
    """
    page_bytes = layout.page_head_bytes * block.head_count
    if page_bytes > max_bytes:
        raise InvalidArgumentError(
            f"one page of one layer has {page_bytes} bytes, a frame at most {max_bytes}; "
            "raise max_frame_bytes"
        )
    pages = min(block.page_count, max_bytes // page_bytes)
    layers = min(block.layer_count, max_bytes // (page_bytes * pages))
    heads = (block.first_head, block.head_count)
    for layer in range(block.first_layer, block.end_layer, layers):
        layer_count = min(layers, block.end_layer - layer)
        for page in range(block.first_page, block.end_page, pages):
            page_count = min(pages, block.end_page - page)
            yield Block(layer, layer_count, *heads, page, page_count)
