"""Pages of a list."""

from __future__ import annotations

import pytest

from thunderserve.control.paging import DEFAULT_SIZE, LARGEST_SIZE, page_of
from thunderserve.core.errors import InvalidArgumentError


def test_pages_hold_every_item_once_when_followed_to_the_end() -> None:
    """Tokens lead from page to page, and the last one is empty."""
    seen: list[int] = []
    token = ""
    while True:
        page, token = page_of(range(7), 3, token)
        seen += page
        if not token:
            break
    assert seen == list(range(7))


def test_page_size_is_ours_when_none_is_asked_and_bounded_when_too_large() -> None:
    """Nobody gets a million items at once."""
    assert len(page_of(range(5000), 0, "")[0]) == DEFAULT_SIZE
    assert len(page_of(range(5000), 4000, "")[0]) == LARGEST_SIZE


@pytest.mark.parametrize(("size", "token"), [(-1, ""), (1, "x"), (1, "-1")])
def test_page_is_refused_when_size_or_token_is_wrong(size: int, token: str) -> None:
    """The caller is told which."""
    with pytest.raises(InvalidArgumentError):
        page_of(range(5), size, token)
