"""The router's gRPC service."""

from __future__ import annotations

import uuid
from contextlib import aclosing
from typing import TYPE_CHECKING

from thunderserve.api.router.v1 import router_pb2
from thunderserve.api.router.v1.router_pb2_grpc import RouterServiceServicer
from thunderserve.core.errors import InvalidArgumentError
from thunderserve.core.request import SamplingParams
from thunderserve.router.job import ChatMessage, GenerationRequest, is_harmless_id
from thunderserve.wire.enums import finish_reason_to_proto, wire_mode_from_proto
from thunderserve.wire.requests import generation_report_to_proto, sampling_from_proto

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from typing import Any

    import grpc

    from thunderserve.router.frontend import Frontend, TextChunk
    from thunderserve.router.job import Prompt

    _Context = grpc.aio.ServicerContext[Any, Any]

__all__ = ["RouterServicer"]

_ROLES = {"system", "user", "assistant"}


class RouterServicer(RouterServiceServicer):
    """Generates text, and says what this router sees."""

    def __init__(self, frontend: Frontend) -> None:
        self._frontend = frontend

    async def Generate(  # noqa: N802 - the contract's name
        self, request: router_pb2.GenerateRequest, context: _Context
    ) -> AsyncIterator[router_pb2.GenerateResponse]:
        """Text and tokens as they come; the last message carries the report."""
        asked = _request_from_proto(request)
        async with self._frontend.generate(asked, context.time_remaining()) as stream:
            last: TextChunk | None = None
            async with aclosing(stream.chunks()) as chunks:
                async for chunk in chunks:
                    if chunk.finish_reason is None:
                        yield _response(asked.request_id, chunk)
                    else:
                        last = chunk
            if last is not None:
                response = _response(asked.request_id, last)
                response.report.CopyFrom(generation_report_to_proto(stream.report()))
                yield response

    async def ListModels(  # noqa: N802 - as above
        self,
        request: router_pb2.ListModelsRequest,  # noqa: ARG002 - it has no fields
        context: _Context,  # noqa: ARG002 - not needed
    ) -> router_pb2.ListModelsResponse:
        """The model, once a request for it can be served."""
        front = self._frontend
        model = router_pb2.Model(id=front.model_name, context_tokens=front.context_tokens)
        return router_pb2.ListModelsResponse(models=[model] if front.ready else [])

    async def GetRouterStatus(  # noqa: N802 - as above
        self,
        request: router_pb2.GetRouterStatusRequest,  # noqa: ARG002 - it has no fields
        context: _Context,  # noqa: ARG002 - not needed
    ) -> router_pb2.RouterStatus:
        """Plan, pairs and counts."""
        table, done = self._frontend.table, self._frontend.statistics()
        counts = [
            router_pb2.RouteCount(prefill=c.prefill, decode=c.decode, dispatch_count=c.dispatches)
            for c in table.counts()
        ]
        return router_pb2.RouterStatus(
            plan_epoch=table.epoch,
            ready=table.ready,
            in_flight_count=self._frontend.admission.in_flight,
            route_counts=counts,
            retry_count=done.retries,
            continuation_count=done.continuations,
            disagreement_count=done.disagreements,
        )


def _request_from_proto(message: router_pb2.GenerateRequest) -> GenerationRequest:
    has_sampling = message.HasField("sampling")
    sampling = sampling_from_proto(message.sampling) if has_sampling else SamplingParams()
    return GenerationRequest(
        request_id=_request_id(message.request_id),
        model=message.model,
        prompt=_prompt_from_proto(message),
        sampling=sampling,
        max_tokens=sampling.max_tokens,
        stop=tuple(message.stop),
        wire_mode=wire_mode_from_proto(message.wire_mode),
    )


def _request_id(given: str) -> str:
    if given and not is_harmless_id(given):
        raise InvalidArgumentError(
            f"request_id {given[:40]!r} is not 1 to 128 letters, digits, dots, dashes, colons and "
            "underscores",
            param="request_id",
        )
    return given or uuid.uuid4().hex


def _prompt_from_proto(message: router_pb2.GenerateRequest) -> Prompt:
    match message.WhichOneof("input"):
        case "prompt":
            return message.prompt
        case "tokens":
            return tuple(message.tokens.token_ids)
        case "chat":
            return tuple(_message_from_proto(m) for m in message.chat.messages)
        case _:
            raise InvalidArgumentError("give one of prompt, chat and tokens", param="input")


def _message_from_proto(message: router_pb2.ChatMessage) -> ChatMessage:
    if message.role not in _ROLES:
        raise InvalidArgumentError(
            f"role is {message.role!r}; it must be system, user or assistant", param="chat"
        )
    return ChatMessage(message.role, message.content)


def _response(request_id: str, chunk: TextChunk) -> router_pb2.GenerateResponse:
    return router_pb2.GenerateResponse(
        request_id=request_id,
        text=chunk.text,
        token_ids=chunk.token_ids,
        finish_reason=finish_reason_to_proto(chunk.finish_reason),
    )
