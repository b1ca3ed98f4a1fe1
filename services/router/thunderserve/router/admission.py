"""Who may come in: the right model, a prompt that fits, and no more requests than agreed.

Decisions only; the caller counts nothing itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from thunderserve.core.errors import InvalidArgumentError, NotFoundError, OverloadedError

if TYPE_CHECKING:
    from types import TracebackType

__all__ = ["Admission", "ContextLengthError", "check_model", "room_for_answer"]

RETRY_AFTER_S = 1.0


class ContextLengthError(InvalidArgumentError):
    """The prompt, or prompt and answer together, do not fit the model's context."""


@dataclass(slots=True)
class Admission:
    """Counts requests in flight; use it as a block around each one.

    ::

        with admission:
            ...  # one more in flight; OverloadedError instead when it would be one too many
    """

    max_in_flight: int
    in_flight: int = 0

    def __enter__(self) -> Self:
        if self.in_flight >= self.max_in_flight:
            raise OverloadedError(
                f"{self.in_flight} requests are in flight, the most this router takes; "
                f"try again in {RETRY_AFTER_S:g} s",
                retry_after_s=RETRY_AFTER_S,
            )
        self.in_flight += 1
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.in_flight -= 1


def check_model(asked: str, served: str) -> None:
    """An empty name is the served model.

    Raises:
        NotFoundError: Another model is asked for; the message names the served one.
    """
    if asked not in {"", served}:
        raise NotFoundError(f"model {asked!r} is not served here; this router serves {served!r}")


def room_for_answer(prompt_tokens: int, max_tokens: int | None, context_tokens: int) -> int:
    """Tokens that the answer may have.

    Args:
        prompt_tokens: Length of the prompt.
        max_tokens: What the client wants; None is all that fits.
        context_tokens: Prompt and answer together.

    Raises:
        ContextLengthError: They do not fit; the message names the numbers.
        InvalidArgumentError: `max_tokens` is not positive.
    """
    if max_tokens is not None and max_tokens <= 0:
        raise InvalidArgumentError(
            f"max_tokens is {max_tokens}; it must be at least 1", param="max_tokens"
        )
    left = context_tokens - prompt_tokens
    if left <= 0:
        raise ContextLengthError(
            f"the prompt has {prompt_tokens} tokens, but the model's context is {context_tokens} "
            "tokens, prompt and answer together; shorten the prompt",
            param="prompt",
        )
    if max_tokens is not None and max_tokens > left:
        raise ContextLengthError(
            f"the prompt has {prompt_tokens} tokens and max_tokens is {max_tokens}, together "
            f"{prompt_tokens + max_tokens}, but the model's context is {context_tokens} tokens; "
            f"shorten the prompt or ask for at most {left}",
            param="max_tokens",
        )
    return left if max_tokens is None else max_tokens
