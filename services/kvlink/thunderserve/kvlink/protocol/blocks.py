"""Blocks: rectangles of (layers, pages) that travel as one frame."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from thunderserve.core.errors import InvalidArgumentError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from thunderserve.core.kv import KvLayout

__all__ = ["Block", "split_block"]


@dataclass(frozen=True, slots=True)
class Block:
    """Layers and pages, half-open ranges; a page's number is its place within the request."""

    first_layer: int
    layer_count: int
    first_page: int
    page_count: int

    def __post_init__(self) -> None:
        if min(self.first_layer, self.first_page) < 0 or min(self.layer_count, self.page_count) < 1:
            raise InvalidArgumentError(f"{self} is empty or starts below 0")


def split_block(layout: KvLayout, block: Block, max_bytes: int) -> Iterator[Block]:
    """Cut a block so that no part holds more than `max_bytes` of 16-bit values.

    Layers are cut first: a codec gains from many tokens of one channel, never from many layers.

    Raises:
        InvalidArgumentError: One page of one layer is larger than `max_bytes`.
    """
    if layout.page_layer_bytes > max_bytes:
        raise InvalidArgumentError(
            f"one page of one layer has {layout.page_layer_bytes} bytes, a frame at most "
            f"{max_bytes}; raise max_frame_bytes"
        )
    pages = min(block.page_count, max_bytes // layout.page_layer_bytes)
    layers = min(block.layer_count, max_bytes // (layout.page_layer_bytes * pages))
    for layer in range(block.first_layer, block.first_layer + block.layer_count, layers):
        layer_count = min(layers, block.first_layer + block.layer_count - layer)
        for page in range(block.first_page, block.first_page + block.page_count, pages):
            page_count = min(pages, block.first_page + block.page_count - page)
            yield Block(layer, layer_count, page, page_count)
