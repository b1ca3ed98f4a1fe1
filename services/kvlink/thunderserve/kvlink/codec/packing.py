"""Where the parts of an int4 payload lie.

A block is rows (layer, keys|values) of (tokens, channels). Each row is cut into groups of 64
tokens; the last group takes what remains, up to 127. One group after the other, row by row::

    least     (channels,) 16 bits    the group's least value of each channel, in the cache's dtype
    greatest  (channels,) 16 bits    and its greatest
    codes     (words, channels) 32 bits, little-endian: eight tokens' 4-bit codes in a word, the
              first token lowest; nothing is read above a group's last token
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["GROUP_TOKENS", "WORD_TOKENS", "group_ranges", "group_words", "packed_bytes"]

GROUP_TOKENS = 64
WORD_TOKENS = 8
_LINE_BYTES_PER_CHANNEL = 4  # both ends of a group, or a word of codes


def group_ranges(tokens: int) -> Iterator[tuple[int, int]]:
    """First token and the one behind the last, of each group of a row."""
    count = max(1, tokens // GROUP_TOKENS)
    for number in range(count):
        last = tokens if number + 1 == count else (number + 1) * GROUP_TOKENS
        yield number * GROUP_TOKENS, last


def group_words(tokens: int) -> int:
    """Words of codes for a channel of one group."""
    return -(-tokens // WORD_TOKENS)


def packed_bytes(rows: int, tokens: int, channels: int) -> int:
    """Size of a payload: 4.5 bits a value where groups are full."""
    lines = sum(1 + group_words(last - first) for first, last in group_ranges(tokens))
    return _LINE_BYTES_PER_CHANNEL * rows * lines * channels
