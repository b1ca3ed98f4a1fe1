"""Pages of a list: a size that the caller asks for, and a token for the next one."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from thunderserve.core.errors import InvalidArgumentError

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["page_of"]

DEFAULT_SIZE = 100
LARGEST_SIZE = 1000

_Item = TypeVar("_Item")


def page_of(items: Sequence[_Item], size: int, token: str) -> tuple[Sequence[_Item], str]:
    """One page and the token of the next one, empty at the end.

    Args:
        items: The whole list, in an order that does not change between calls.
        size: Items at most; 0 leaves it to us, and too many are cut.
        token: Empty for the first page, else what the page before gave.

    Raises:
        InvalidArgumentError: A negative size, or a token that is none.
    """
    if size < 0:
        raise InvalidArgumentError(f"page_size is {size}; it must be >= 0", param="page_size")
    if token and not token.isdecimal():
        raise InvalidArgumentError(f"{token!r} is no page token", param="page_token")
    start = int(token or 0)
    end = start + min(size or DEFAULT_SIZE, LARGEST_SIZE)
    return items[start:end], str(end) if end < len(items) else ""
