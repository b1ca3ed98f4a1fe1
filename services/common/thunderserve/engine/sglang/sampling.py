"""Our sampling parameters as SGLang's, and SGLang's output as ours."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from thunderserve.core.errors import (
    InvalidArgumentError,
    ThunderServeError,
    TransferError,
    UnavailableError,
)
from thunderserve.core.request import FinishReason, TokenChunk

if TYPE_CHECKING:
    from collections.abc import Mapping

    from thunderserve.core.request import SamplingParams

__all__ = ["abort_error", "sglang_sampling", "token_chunk"]

BAD_REQUEST = 400
_ALL_TOKENS = -1


def sglang_sampling(sampling: SamplingParams, *, max_tokens: int) -> dict[str, Any]:
    """SGLang's sampling parameters.

    The seed takes effect where SGLang runs deterministically; elsewhere it is ignored.
    """
    parameters: dict[str, Any] = {
        "max_new_tokens": max_tokens,
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "top_k": sampling.top_k or _ALL_TOKENS,
        "ignore_eos": sampling.ignore_eos,
    }
    if sampling.stop_token_ids:
        parameters["stop_token_ids"] = list(sampling.stop_token_ids)
    if sampling.seed is not None:
        parameters["sampling_seed"] = sampling.seed
    return parameters


def token_chunk(output: Mapping[str, Any]) -> TokenChunk:
    """The tokens and the end, if it is one, of one streamed output."""
    reason = output["meta_info"].get("finish_reason")
    tokens = tuple(output["output_ids"])
    if reason is None:
        return TokenChunk(tokens)
    return TokenChunk(tokens, FinishReason.LENGTH if _is(reason, "length") else FinishReason.STOP)


def abort_error(output: Mapping[str, Any], *, transferred: bool) -> ThunderServeError | None:
    """The error of an output that ends in an abort; None for any other.

    Args:
        output: One streamed output.
        transferred: True when the request's cache travels between engines.
    """
    reason = output["meta_info"].get("finish_reason")
    if reason is None or not _is(reason, "abort"):
        return None
    message = f"SGLang ended the request: {reason.get('message') or 'it gave no reason'}"
    if reason.get("status_code") == BAD_REQUEST:
        return InvalidArgumentError(message)
    return TransferError(message) if transferred else UnavailableError(message)


def _is(reason: Mapping[str, Any], kind: str) -> bool:
    return bool(reason.get("type") == kind)
