"""The first token is shown once, whichever leg is first."""

from __future__ import annotations

import pytest

from thunderserve.core.errors import LegsDisagreeError
from thunderserve.router.splice import Splice


def test_splice_drops_the_repetition_when_prefill_is_first() -> None:
    """As it is meant to be."""
    splice = Splice()

    assert splice.prefill(7) == (7,)
    assert splice.decode((7, 8)) == (8,)
    assert splice.decode((9,)) == (9,)


def test_splice_drops_the_repetition_when_decode_is_first() -> None:
    """The two legs come over two connections; any order may happen."""
    splice = Splice()

    assert splice.decode((7, 8)) == (7, 8)
    assert splice.prefill(7) == ()


def test_splice_shows_nothing_when_decode_repeats_alone() -> None:
    """A chunk with only the first token adds nothing."""
    splice = Splice()
    splice.prefill(7)

    assert splice.decode(()) == ()
    assert splice.decode((7,)) == ()


def test_splice_refuses_when_decode_repeats_another_token() -> None:
    """A wrong first token means wrong KV: the answer cannot be trusted."""
    splice = Splice()
    splice.prefill(7)

    with pytest.raises(LegsDisagreeError, match="suspect"):
        splice.decode((8,))


def test_splice_refuses_when_prefill_comes_late_with_another_token() -> None:
    """The same in the other order."""
    splice = Splice()
    splice.decode((8,))

    with pytest.raises(LegsDisagreeError, match="suspect"):
        splice.prefill(7)
