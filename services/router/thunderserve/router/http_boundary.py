"""The outermost layer of the HTTP API: a request id for everyone, and never a bare 500."""

from __future__ import annotations

import logging
import uuid
from typing import TYPE_CHECKING

from starlette.datastructures import Headers, MutableHeaders

from thunderserve.router.http_errors import plain_error
from thunderserve.router.job import is_harmless_id

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

__all__ = ["Boundary"]

_log = logging.getLogger(__name__)


class Boundary:
    """Middleware: takes or makes `x-request-id`, returns it, and catches what nobody caught."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one HTTP request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = _request_id(scope)
        scope.setdefault("state", {})["request_id"] = request_id
        started = False

        async def send_with_id(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                message["headers"] = list(message.get("headers", ()))
                MutableHeaders(scope=message)["x-request-id"] = request_id
            await send(message)

        try:
            await self._app(scope, receive, send_with_id)
        except Exception:
            _log.exception("request %s failed", request_id)
            if started:
                raise
            response = plain_error(500, "internal error; the router's log has it", "internal_error")
            await response(scope, receive, send_with_id)


def _request_id(scope: Scope) -> str:
    """The client's own, if it is harmless in logs and headers."""
    given = Headers(scope=scope).get("x-request-id", "")
    return given if is_harmless_id(given) else uuid.uuid4().hex
