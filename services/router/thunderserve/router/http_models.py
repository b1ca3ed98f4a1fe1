"""OpenAI request bodies, read strictly: what would change the answer and is not done is refused."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from thunderserve.core.errors import InvalidArgumentError
from thunderserve.core.request import SamplingParams, WireMode
from thunderserve.router.http_fields import Fields, shown, well_formed, wrong
from thunderserve.router.job import ChatMessage, GenerationRequest

if TYPE_CHECKING:
    from thunderserve.router.job import Prompt

__all__ = ["CompletionCall", "chat_call", "completion_call"]

INT32_MAX = 2**31 - 1
INT64_MIN, INT64_MAX = -(2**63), 2**63 - 1
MOST_STOP_STRINGS = 16
COMPLETION_MAX_TOKENS = 16  # the OpenAI API's default
DEFAULT_TEMPERATURE = 1.0  # likewise

_SHARED = {
    *("model", "max_tokens", "temperature", "top_p", "seed", "stop", "stream", "stream_options"),
    # Extensions, spelt as other servers spell them; `kv_wire_mode` is our own.
    *("top_k", "stop_token_ids", "ignore_eos", "kv_wire_mode"),
}
# These cannot change the answer.
_HARMLESS = {
    *("user", "metadata", "store", "service_tier", "safety_identifier"),
    *("prompt_cache_key", "prompt_cache_retention"),
}
# The values beside each name ask for nothing.
_UNSUPPORTED: dict[str, tuple[Any, ...]] = {
    "n": (1,),
    "presence_penalty": (0,),
    "frequency_penalty": (0,),
    "repetition_penalty": (1,),
    "min_p": (0,),
    "min_tokens": (0,),
    "logit_bias": ({},),
    "use_beam_search": (False,),
}
_CHAT_UNSUPPORTED = _UNSUPPORTED | {
    "logprobs": (False,),
    "top_logprobs": (0,),
    "tools": ([],),
    "tool_choice": ("none", "auto"),
    "parallel_tool_calls": (False, True),
    "functions": ([],),
    "function_call": ("none", "auto"),
    "response_format": ({"type": "text"},),
    "modalities": (["text"],),
    "audio": (),
    "prediction": (),
    "reasoning_effort": ("none",),
    "verbosity": (),
    "web_search_options": (),
}
_COMPLETION_UNSUPPORTED = _UNSUPPORTED | {
    "logprobs": (),
    "best_of": (1,),
    "echo": (False,),
    "suffix": ("",),
}
_ROLES = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"}


@dataclass(frozen=True, slots=True)
class CompletionCall:
    """A request, and how the client wants its answer."""

    request: GenerationRequest
    stream: bool
    include_usage: bool


def chat_call(fields: Fields, request_id: str) -> CompletionCall:
    """The body of `/v1/chat/completions`.

    Raises:
        InvalidArgumentError: A field is wrong, missing, unknown or not supported.
    """
    known = _SHARED | _HARMLESS | set(_CHAT_UNSUPPORTED) | {"messages", "max_completion_tokens"}
    fields.refuse_unknown(known)
    fields.refuse_unsupported(_CHAT_UNSUPPORTED)
    max_tokens = _max_tokens(fields, "max_tokens")
    newer = _max_tokens(fields, "max_completion_tokens")
    if None not in {max_tokens, newer} and max_tokens != newer:
        raise InvalidArgumentError(
            f"max_tokens is {max_tokens}, but max_completion_tokens is {newer}; give one",
            param="max_completion_tokens",
        )
    limit = max_tokens if newer is None else newer
    return _call(fields, request_id, _messages(fields.values.get("messages")), limit)


def completion_call(fields: Fields, request_id: str) -> CompletionCall:
    """The body of `/v1/completions`.

    Raises:
        InvalidArgumentError: A field is wrong, missing, unknown or not supported.
    """
    fields.refuse_unknown(_SHARED | _HARMLESS | set(_COMPLETION_UNSUPPORTED) | {"prompt"})
    fields.refuse_unsupported(_COMPLETION_UNSUPPORTED)
    max_tokens = _max_tokens(fields, "max_tokens")
    limit = COMPLETION_MAX_TOKENS if max_tokens is None else max_tokens
    return _call(fields, request_id, _prompt(fields.values.get("prompt")), limit)


def _call(
    fields: Fields, request_id: str, prompt: Prompt, max_tokens: int | None
) -> CompletionCall:
    model = fields.text("model")
    if not model:
        raise InvalidArgumentError(
            "model is missing; /v1/models lists what is served", param="model"
        )
    request = GenerationRequest(
        request_id=request_id,
        model=model,
        prompt=prompt,
        sampling=_sampling(fields),
        max_tokens=max_tokens,
        stop=_stop(fields.values.get("stop")),
        wire_mode=_wire_mode(fields),
    )
    options = fields.fields("stream_options")
    options.refuse_unknown({"include_usage", "include_obfuscation"})
    stream = fields.flag("stream")
    if options.values and not stream:
        raise InvalidArgumentError("stream_options is only for stream=true", param="stream_options")
    return CompletionCall(request, stream, options.flag("include_usage"))


def _sampling(fields: Fields) -> SamplingParams:
    return SamplingParams(
        temperature=fields.number("temperature", DEFAULT_TEMPERATURE),
        top_p=fields.number("top_p", 1.0),
        # -1 is how other servers spell "all".
        top_k=max(fields.integer("top_k", -1, INT32_MAX) or 0, 0),
        stop_token_ids=_token_ids(fields.values.get("stop_token_ids") or [], "stop_token_ids"),
        ignore_eos=fields.flag("ignore_eos"),
        seed=fields.integer("seed", INT64_MIN, INT64_MAX),
    )


def _max_tokens(fields: Fields, name: str) -> int | None:
    value = fields.integer(name, INT64_MIN, INT64_MAX)
    if value is not None and value <= 0:
        wrong(name, value, "at least 1")
    return value


def _wire_mode(fields: Fields) -> WireMode:
    value = fields.text("kv_wire_mode")
    if value is None:
        return WireMode.DEFAULT
    if value not in {WireMode.RAW16, WireMode.INT4, WireMode.AUTO}:
        wrong("kv_wire_mode", value, '"raw16", "int4" or "auto"')
    return WireMode(value)


def _stop(value: Any) -> tuple[str, ...]:
    if value is None:
        return ()
    strings = [value] if isinstance(value, str) else value
    if not isinstance(strings, list) or not all(isinstance(s, str) and s for s in strings):
        wrong("stop", value, "a non-empty string or a list of them")
    if len(strings) > MOST_STOP_STRINGS:
        raise InvalidArgumentError(
            f"stop has {len(strings)} strings; at most {MOST_STOP_STRINGS} are taken", param="stop"
        )
    return tuple(well_formed(s, "stop") for s in strings)


def _prompt(value: Any) -> str | tuple[int, ...]:
    """A string, a list of tokens, or a list of exactly one of these."""
    if isinstance(value, list) and len(value) == 1 and isinstance(value[0], str | list):
        value = value[0]
    if isinstance(value, str) and value:
        return well_formed(value, "prompt")
    if isinstance(value, list) and value and isinstance(value[0], str | list):
        raise InvalidArgumentError(
            f"prompt holds {len(value)} prompts; send one request for each", param="prompt"
        )
    if not isinstance(value, list) or not value:
        wrong("prompt", value, "a non-empty string or list of tokens")
    return _token_ids(value, "prompt")


def _token_ids(value: Any, name: str) -> tuple[int, ...]:
    if not isinstance(value, list):
        wrong(name, value, "a list of tokens")
    for token in value:
        if isinstance(token, bool) or not isinstance(token, int) or not 0 <= token <= INT32_MAX:
            raise InvalidArgumentError(
                f"{name} holds {shown(token)}, which is no token", param=name
            )
    return tuple(value)


def _messages(value: Any) -> tuple[ChatMessage, ...]:
    if not isinstance(value, list) or not value:
        wrong("messages", value, "a non-empty list of messages")
    return tuple(_message(message, f"messages[{i}]") for i, message in enumerate(value))


def _message(value: Any, name: str) -> ChatMessage:
    if not isinstance(value, dict):
        wrong(name, value, "an object with role and content")
    role = value.get("role")
    if not isinstance(role, str) or role not in _ROLES:
        wrong(f"{name}.role", role, f"one of {', '.join(_ROLES)}")
    for unsupported in ("tool_calls", "function_call", "audio", "refusal"):
        if value.get(unsupported):
            message = f"{name}.{unsupported} is not supported by this server"
            raise InvalidArgumentError(message, param=f"{name}.{unsupported}")
    return ChatMessage(_ROLES[role], _content(value.get("content"), f"{name}.content"))


def _content(value: Any, name: str) -> str:
    """A string, or a list of text parts."""
    if isinstance(value, str):
        return well_formed(value, name)
    if not isinstance(value, list):
        wrong(name, value, "a string or a list of text parts")
    texts: list[str] = []
    for i, part in enumerate(value):
        kind = part.get("type") if isinstance(part, dict) else None
        if kind != "text":
            wrong(f"{name}[{i}].type", kind, '"text", the only kind this server takes')
        text = part.get("text")
        if not isinstance(text, str):
            wrong(f"{name}[{i}].text", text, "a string")
        texts.append(well_formed(text, name))
    return "".join(texts)
