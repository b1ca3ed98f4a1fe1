"""From the SDK's arguments to the router's messages, and back; no input or output."""

from __future__ import annotations

from typing import TYPE_CHECKING

from thunderserve.api.router.v1 import router_pb2
from thunderserve.client.types import (
    Generation,
    Model,
    RouteCount,
    RouterStatus,
    TokenDelta,
)
from thunderserve.core.errors import InvalidArgumentError, UnavailableError
from thunderserve.core.request import SamplingParams, WireMode
from thunderserve.wire.enums import finish_reason_from_proto, wire_mode_to_proto
from thunderserve.wire.requests import generation_report_from_proto, sampling_to_proto

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from thunderserve.client.options import GenerateOptions
    from thunderserve.client.types import Message

__all__ = [
    "AnswerBuilder",
    "build_request",
    "delta_from_proto",
    "models_from_proto",
    "router_status_from_proto",
]


DEFAULT_MAX_TOKENS = 128


def build_request(prompt: str | None, options: GenerateOptions) -> router_pb2.GenerateRequest:
    """One `GenerateRequest`.

    Raises:
        InvalidArgumentError: Not exactly one of prompt, messages and token_ids was given, or a
            value is out of its range; `param` names it.
    """
    stop = options.get("stop", ())
    request = router_pb2.GenerateRequest(
        request_id=options.get("request_id", ""),
        model=options.get("model", ""),
        sampling=sampling_to_proto(_sampling(options)),
        stop=[stop] if isinstance(stop, str) else stop,
        wire_mode=wire_mode_to_proto(options.get("wire_mode", WireMode.DEFAULT)),
    )
    _set_input(request, prompt, options.get("messages"), options.get("token_ids"))
    return request


def _sampling(options: GenerateOptions) -> SamplingParams:
    return SamplingParams(
        max_tokens=options.get("max_tokens", DEFAULT_MAX_TOKENS),
        temperature=options.get("temperature", 0.0),
        top_p=options.get("top_p", 1.0),
        top_k=options.get("top_k", 0),
        stop_token_ids=tuple(options.get("stop_token_ids", ())),
        ignore_eos=options.get("ignore_eos", False),
        seed=options.get("seed"),
    )


def _set_input(
    request: router_pb2.GenerateRequest,
    prompt: str | None,
    messages: Iterable[Message] | None,
    token_ids: Sequence[int] | None,
) -> None:
    inputs = {"prompt": prompt, "messages": messages, "token_ids": token_ids}
    given = [name for name, value in inputs.items() if value is not None]
    if len(given) != 1:
        raise InvalidArgumentError(
            f"give one of prompt, messages and token_ids; got {' and '.join(given) or 'none'}"
        )
    if prompt is not None:
        request.prompt = prompt
    elif messages is not None:
        chat = [router_pb2.ChatMessage(role=m.role, content=m.content) for m in messages]
        request.chat.CopyFrom(router_pb2.ChatInput(messages=chat))
    elif token_ids is not None:
        request.tokens.CopyFrom(router_pb2.TokenInput(token_ids=token_ids))


def delta_from_proto(response: router_pb2.GenerateResponse) -> TokenDelta:
    """One message of a stream."""
    has_report = response.HasField("report")
    return TokenDelta(
        text=response.text,
        token_ids=tuple(response.token_ids),
        finish_reason=finish_reason_from_proto(response.finish_reason),
        report=generation_report_from_proto(response.report) if has_report else None,
    )


def models_from_proto(response: router_pb2.ListModelsResponse) -> tuple[Model, ...]:
    """The served models."""
    return tuple(Model(model.id, model.context_tokens) for model in response.models)


def router_status_from_proto(response: router_pb2.RouterStatus) -> RouterStatus:
    """What the router says of itself."""
    return RouterStatus(
        plan_epoch=response.plan_epoch,
        ready=response.ready,
        in_flight=response.in_flight_count,
        route_counts=tuple(
            RouteCount(count.prefill, count.decode, count.dispatch_count)
            for count in response.route_counts
        ),
    )


class AnswerBuilder:
    """Puts a stream's messages together; one owner, the stream."""

    def __init__(self) -> None:
        self._request_id = ""
        self._texts: list[str] = []
        self._token_ids: list[int] = []
        self._last: TokenDelta | None = None

    def add(self, response: router_pb2.GenerateResponse) -> TokenDelta:
        """Take the next message in and return it as a delta."""
        delta = delta_from_proto(response)
        self._request_id = response.request_id or self._request_id
        self._texts.append(delta.text)
        self._token_ids.extend(delta.token_ids)
        if delta.finish_reason is not None:
            self._last = delta
        return delta

    def generation(self) -> Generation:
        """The whole answer.

        Raises:
            UnavailableError: The stream ended before its last message, so the answer may be cut.
        """
        last = self._last
        if last is None or last.finish_reason is None or last.report is None:
            raise UnavailableError(
                f"the stream ended after {len(self._token_ids)} tokens, before its last message; "
                "ask again"
            )
        return Generation(
            request_id=self._request_id,
            text="".join(self._texts),
            token_ids=tuple(self._token_ids),
            finish_reason=last.finish_reason,
            report=last.report,
        )
