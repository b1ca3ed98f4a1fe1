"""The tokens of one answer, as many at a time as were produced."""

from __future__ import annotations

from typing import TYPE_CHECKING

from thunderserve.core.request import FinishReason, TokenChunk
from thunderserve.engine.emulated.tokens import Prefix

if TYPE_CHECKING:
    from collections.abc import Sequence

    from thunderserve.core.request import SamplingParams

__all__ = ["Answer"]


class Answer:
    """Grows token by token; a function of the prompt alone."""

    def __init__(self, prompt: Sequence[int], sampling: SamplingParams, vocab_tokens: int) -> None:
        self._prefix = Prefix(prompt)
        self._stops = frozenset(sampling.stop_token_ids)
        self._left = sampling.max_tokens
        self._vocab_tokens = vocab_tokens

    @property
    def next_token(self) -> int:
        """The token that follows."""
        return self._prefix.next_token(self._vocab_tokens)

    def take(self, count: int) -> TokenChunk:
        """The next tokens; fewer where a stop token or the answer's end comes first."""
        tokens: list[int] = []
        for _ in range(min(count, self._left)):
            tokens.append(self.next_token)
            self._prefix.append(tokens[-1])
            if tokens[-1] in self._stops:
                return TokenChunk(tuple(tokens), FinishReason.STOP)
        self._left -= len(tokens)
        return TokenChunk(tuple(tokens), None if self._left else FinishReason.LENGTH)
