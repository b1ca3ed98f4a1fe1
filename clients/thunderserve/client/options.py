"""The keywords that `generate` and `stream` take, sync and async alike."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypedDict

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from thunderserve.client.types import Message
    from thunderserve.core.request import WireMode

__all__ = ["GenerateOptions"]


class GenerateOptions(TypedDict, total=False):
    """What to generate from, how tokens are chosen, when to stop.

    The input is exactly one of a prompt (the positional argument), `messages` and `token_ids`.

    Attributes:
        messages: A chat to answer.
        token_ids: A prompt that is tokenised already.
        model: The served model when left out.
        max_tokens: Tokens to produce at most, > 0; 128 when left out.
        temperature: In [0, 2]; 0, which is greedy, when left out.
        top_p: In (0, 1]; 1 when left out.
        top_k: Tokens considered; 0, which is all, when left out.
        stop: Strings that end the answer and are not part of it.
        stop_token_ids: Token ids that end the answer.
        ignore_eos: Go on past the model's end token.
        seed: Seed of the draw; unseeded when left out.
        wire_mode: How this request's KV cache travels; the fleet's default when left out.
        request_id: The router makes one when left out.
        timeout_s: Deadline of the whole answer; the client's own when left out.
    """

    messages: Iterable[Message]
    token_ids: Sequence[int]
    model: str
    max_tokens: int
    temperature: float
    top_p: float
    top_k: int
    stop: str | Sequence[str]
    stop_token_ids: Sequence[int]
    ignore_eos: bool
    seed: int
    wire_mode: WireMode
    request_id: str
    timeout_s: float
