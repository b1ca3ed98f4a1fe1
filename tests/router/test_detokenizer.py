"""Text comes out whole: no half characters, no stop strings."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hypothesis import given
from hypothesis import strategies as st

from thunderserve.demo_model import model_path
from thunderserve.router.detokenizer import REPLACEMENT, Detokenizer, StopMatcher
from thunderserve.router.tokenizer import load_tokenizer

if TYPE_CHECKING:
    from collections.abc import Sequence

TOKENIZER = load_tokenizer(model_path()).tokenizer
texts = st.text(st.characters(codec="utf-8", exclude_characters=REPLACEMENT), max_size=60)


def pieces(token_ids: Sequence[int], prompt: Sequence[int] = ()) -> list[str]:
    """What is shown after each token, and at the end."""
    detokenizer = Detokenizer(TOKENIZER, prompt)
    return [*(detokenizer.push([t]) for t in token_ids), detokenizer.flush()]


@given(texts, texts)
def test_detokenizer_gives_the_text_when_it_comes_token_by_token(prompt: str, text: str) -> None:
    """The pieces add up to the text, whatever the characters, and none is half a character."""
    prompt_ids = TOKENIZER.encode(prompt, add_special_tokens=False).ids
    shown = pieces(TOKENIZER.encode(text, add_special_tokens=False).ids, prompt_ids)

    assert "".join(shown) == text
    assert REPLACEMENT not in "".join(shown)


@given(st.lists(st.integers(3, 4095), max_size=50))
def test_detokenizer_agrees_with_decoding_at_once_when_tokens_are_any(tokens: list[int]) -> None:
    """Also for bytes that are no UTF-8, as long as the run of them is short."""
    whole = TOKENIZER.decode(tokens)
    shown = "".join(pieces(tokens))

    assert shown.replace(REPLACEMENT, "") == whole.replace(REPLACEMENT, "")


def test_detokenizer_withholds_bytes_until_the_character_is_complete() -> None:
    """An emoji of several tokens appears with its last one."""
    tokens = TOKENIZER.encode("a🎉b", add_special_tokens=False).ids

    shown = pieces(tokens)

    assert len(tokens) > 3
    assert [piece for piece in shown if piece] == ["a", "🎉", "b"]


def test_detokenizer_shows_a_replacement_when_the_end_is_half_a_character() -> None:
    """What decoding the whole answer would show too."""
    tokens = TOKENIZER.encode("é", add_special_tokens=False).ids[:1]

    assert pieces(tokens) == ["", REPLACEMENT]


def test_detokenizer_skips_special_tokens() -> None:
    """They are no text."""
    assert pieces([0, 1, 2]) == ["", "", "", ""]


def test_detokenizer_goes_on_when_bytes_never_become_a_character() -> None:
    """A model that only writes continuation bytes is shown as such, and costs bounded work."""
    continuation = TOKENIZER.encode("é", add_special_tokens=False).ids[1]

    shown = pieces([continuation] * 100)

    assert "".join(shown) == REPLACEMENT * 100
    assert sum(1 for piece in shown if piece) > 3


def matched(stop: Sequence[str], *texts: str) -> tuple[str, bool]:
    """What is shown of the texts, and whether it stopped."""
    matcher, shown = StopMatcher(stop), ""
    for text in texts:
        new, stopped = matcher.push(text)
        shown += new
        if stopped:
            return shown, True
    return shown + matcher.flush(), False


def test_stop_matcher_stops_when_the_string_spans_pieces() -> None:
    """Nothing of the stop string is shown."""
    assert matched(["\n\nUser:"], "yes\n", "\nUs", "er: more") == ("yes", True)


def test_stop_matcher_takes_the_earliest_when_several_match() -> None:
    """Not the first in the list."""
    assert matched(["cd", "b"], "abcd") == ("a", True)


def test_stop_matcher_shows_the_rest_when_the_answer_ends_inside_a_stop_string() -> None:
    """What only looked like one is text after all."""
    assert matched(["stop"], "don't st") == ("don't st", False)


def test_stop_matcher_withholds_no_more_than_needed() -> None:
    """Only what may be the beginning of a stop string waits."""
    assert StopMatcher(["abc"]).push("xxab") == ("xx", False)
    assert StopMatcher([]).push("xxab") == ("xxab", False)


@given(st.text("ab", max_size=40), st.lists(st.text("ab", min_size=1, max_size=4), max_size=3))
def test_stop_matcher_agrees_with_searching_the_whole_text(text: str, stop: list[str]) -> None:
    """Piece by piece, the answer ends where the first stop string begins.

    A longer stop string that begins earlier may still be incomplete when a shorter one is found;
    then the answer ends at the shorter one, for its end came first.
    """
    shown, stopped = matched(stop, *text)

    assert text.startswith(shown)
    assert stopped == any(s in text for s in stop)
    assert not any(s in shown for s in stop)
    if not stopped:
        assert shown == text
