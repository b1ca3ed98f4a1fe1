"""The OpenAI-compatible HTTP API, as a Starlette application."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from thunderserve.core.errors import NotFoundError, ThunderServeError, UnavailableError
from thunderserve.router.http_bodies import chat_bodies, completion_bodies
from thunderserve.router.http_boundary import Boundary
from thunderserve.router.http_errors import error_response, plain_error
from thunderserve.router.http_fields import Fields, parse_json
from thunderserve.router.http_models import chat_call, completion_call
from thunderserve.router.http_stream import CompletionResponse

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from starlette.requests import Request

    from thunderserve.router.frontend import Frontend

__all__ = ["build_app"]

BODY_TIMEOUT_S = 30.0
MOST_DISCARDED = 8  # times the longest body taken


class _Endpoints:
    """What the routes call."""

    def __init__(
        self, frontend: Frontend, max_body_bytes: int, unix_clock: Callable[[], float]
    ) -> None:
        self._frontend = frontend
        self._max_body_bytes = max_body_bytes
        self._unix_clock = unix_clock
        self._started_unix_s = int(unix_clock())

    async def chat(self, request: Request) -> Response:
        """POST /v1/chat/completions."""
        request_id = request.state.request_id
        call = chat_call(await self._fields(request), request_id)
        bodies = chat_bodies(
            request_id,
            self._frontend.model_name,
            int(self._unix_clock()),
            include_usage=call.include_usage,
        )
        return CompletionResponse(self._frontend, call, bodies)

    async def completion(self, request: Request) -> Response:
        """POST /v1/completions."""
        request_id = request.state.request_id
        call = completion_call(await self._fields(request), request_id)
        bodies = completion_bodies(
            request_id,
            self._frontend.model_name,
            int(self._unix_clock()),
            include_usage=call.include_usage,
        )
        return CompletionResponse(self._frontend, call, bodies)

    async def models(self, request: Request) -> Response:  # noqa: ARG002 - Starlette's signature
        """GET /v1/models: the model, once a request for it can be served."""
        data = [self._model()] if self._frontend.ready else []
        return JSONResponse({"object": "list", "data": data})

    async def model(self, request: Request) -> Response:
        """GET /v1/models/{id}."""
        asked, served = request.path_params["id"], self._frontend.model_name
        if asked != served:
            raise NotFoundError(
                f"model {asked!r} is not served here; this router serves {served!r}"
            )
        if not self._frontend.ready:
            raise UnavailableError(f"no live pair of groups serves {served!r}; try again later")
        return JSONResponse(self._model())

    async def health(self, request: Request) -> Response:  # noqa: ARG002 - Starlette's signature
        """GET /health: the process lives."""
        return JSONResponse({"status": "ok"})

    async def ready(self, request: Request) -> Response:  # noqa: ARG002 - Starlette's signature
        """GET /ready: a request could be served now."""
        if not self._frontend.ready:
            raise UnavailableError("no live pair of a prefill and a decode group; try again later")
        return JSONResponse({"status": "ready", "plan_epoch": self._frontend.table.epoch})

    def _model(self) -> dict[str, Any]:
        return {
            "id": self._frontend.model_name,
            "object": "model",
            "created": self._started_unix_s,
            "owned_by": "thunderserve",
            "max_model_len": self._frontend.context_tokens,
        }

    async def _fields(self, request: Request) -> Fields:
        kind = request.headers.get("content-type", "application/json").partition(";")[0]
        if kind.strip().lower() != "application/json":
            raise HTTPException(415, f"content-type is {kind!r}; it must be application/json")
        try:
            async with asyncio.timeout(BODY_TIMEOUT_S):
                return parse_json(await self._body(request))
        except TimeoutError:
            message = f"the body did not arrive within {BODY_TIMEOUT_S:g} s"
            raise HTTPException(408, message) from None

    async def _body(self, request: Request) -> bytes:
        most = self._max_body_bytes
        body, length = bytearray(), 0
        async for part in request.stream():
            length += len(part)
            if length <= most:
                body += part
            elif length > most * MOST_DISCARDED:
                raise HTTPException(
                    413, f"the body is far longer than {most} bytes, the most taken"
                )
        if length > most:
            # Read to its end: an answer to half a request would be lost with the connection.
            message = f"the body has {length} bytes; {most} is the most taken"
            raise HTTPException(413, message)
        return bytes(body)


def build_app(
    frontend: Frontend, *, max_body_bytes: int, unix_clock: Callable[[], float]
) -> Starlette:
    """The application; it serves until its event loop ends.

    Args:
        frontend: Serves the requests.
        max_body_bytes: A longer body is refused.
        unix_clock: Seconds since 1970, for `created`.
    """
    endpoints = _Endpoints(frontend, max_body_bytes, unix_clock)
    app = Starlette(
        routes=[
            Route("/v1/chat/completions", endpoints.chat, methods=["POST"]),
            Route("/v1/completions", endpoints.completion, methods=["POST"]),
            Route("/v1/models", endpoints.models, methods=["GET"]),
            Route("/v1/models/{id:path}", endpoints.model, methods=["GET"]),
            Route("/health", endpoints.health, methods=["GET"]),
            Route("/ready", endpoints.ready, methods=["GET"]),
        ],
        middleware=[Middleware(Boundary)],
        exception_handlers={ThunderServeError: _ours, HTTPException: _http},
    )
    app.router.redirect_slashes = False
    return app


async def _ours(request: Request, error: Exception) -> Response:  # noqa: ARG001 - Starlette's signature
    assert isinstance(error, ThunderServeError)  # noqa: S101 - registered for this class alone
    return error_response(error)


_CODES = {
    404: "not_found",
    405: "method_not_allowed",
    408: "timeout",
    413: "body_too_long",
    415: "wrong_content_type",
}


async def _http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101 - registered for this class alone
    message = error.detail
    if error.status_code == 404:  # noqa: PLR2004 - HTTP
        message = f"there is no {request.method} {request.url.path} here"
    elif error.status_code == 405:  # noqa: PLR2004 - HTTP
        message = f"{request.url.path} does not take {request.method}"
    code = _CODES.get(error.status_code, "http_error")
    return plain_error(error.status_code, message, code, dict(error.headers or {}))
