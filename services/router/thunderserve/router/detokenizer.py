"""Tokens to text, as they come: never half a character, never the beginning of a stop string."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tokenizers import Tokenizer

__all__ = ["Detokenizer", "StopMatcher"]

REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
CONTEXT_TOKENS = 6
# A character takes a few tokens at most; a longer run that ends in none is not UTF-8 at all.
MOST_HELD_TOKENS = 16


class Detokenizer:
    """Decodes a growing list of tokens piece by piece.

    A token can be a part of a character, and the text of a token can depend on the one before.
    So a window of recent tokens is decoded again, and what is new and complete is given out::

        tokens    t0 t1 t2 t3 | t4 t5
                  window start     end
        text      "...shown"  | "new" + held back: bytes of an unfinished character

    Args:
        tokenizer: Special tokens have no text.
        prompt_token_ids: Its last tokens are the context of the first new one.
    """

    def __init__(self, tokenizer: Tokenizer, prompt_token_ids: Sequence[int]) -> None:
        self._tokenizer = tokenizer
        self._window = list(prompt_token_ids[-CONTEXT_TOKENS:])
        self._shown_tokens = len(self._window)
        self._shown_characters = len(_complete(self._decode(self._window)))

    def push(self, token_ids: Sequence[int]) -> str:
        """The text that these tokens complete."""
        return "".join(self._push_one(token_id) for token_id in token_ids)

    def flush(self) -> str:
        """What was held back, at the end; unfinished characters are replacement characters."""
        return self._show(self._decode(self._window))

    def _push_one(self, token_id: int) -> str:
        self._window.append(token_id)
        text = self._decode(self._window)
        held = len(self._window) - self._shown_tokens
        if held >= MOST_HELD_TOKENS or not text.endswith(REPLACEMENT):
            return self._slide(text)
        return self._show(_complete(text))

    def _slide(self, text: str) -> str:
        """Show everything; keep only the newest tokens as context for the next."""
        new = self._show(text)
        self._window = self._window[-CONTEXT_TOKENS:]
        self._shown_tokens = len(self._window)
        self._shown_characters = len(self._decode(self._window))
        return new

    def _show(self, text: str) -> str:
        new = text[self._shown_characters :]
        self._shown_characters = max(self._shown_characters, len(text))
        return new

    def _decode(self, token_ids: list[int]) -> str:
        return str(self._tokenizer.decode(token_ids, skip_special_tokens=True))


class StopMatcher:
    """Passes text on until a stop string; withholds what may be the beginning of one."""

    def __init__(self, stop: Sequence[str]) -> None:
        self._stop = tuple(s for s in stop if s)
        self._held = ""

    def push(self, text: str) -> tuple[str, bool]:
        """The text to show now, and whether a stop string was reached; it is not shown."""
        self._held += text
        found = [at for s in self._stop if (at := self._held.find(s)) >= 0]
        if found:
            shown, self._held = self._held[: min(found)], ""
            return shown, True
        keep = self._withheld()
        shown, self._held = self._held[: len(self._held) - keep], self._held[-keep:] if keep else ""
        return shown, False

    def flush(self) -> str:
        """What was withheld, at the end: it was no stop string after all."""
        shown, self._held = self._held, ""
        return shown

    def _withheld(self) -> int:
        """Characters at the end that a stop string may begin with."""
        longest = max((len(s) for s in self._stop), default=0) - 1
        for length in range(min(longest, len(self._held)), 0, -1):
            if any(s.startswith(self._held[-length:]) for s in self._stop):
                return length
        return 0


def _complete(text: str) -> str:
    return text.rstrip(REPLACEMENT)
