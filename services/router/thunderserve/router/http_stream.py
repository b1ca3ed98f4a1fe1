"""Answers on the wire: whole or as server-sent events, ended at once when the client leaves."""

from __future__ import annotations

import asyncio
import json
import logging
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

from starlette.responses import JSONResponse, Response

from thunderserve.core.errors import ThunderServeError
from thunderserve.core.request import FinishReason
from thunderserve.router.http_errors import error_body

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from starlette.types import Receive, Scope, Send

    from thunderserve.router.frontend import Frontend, TextStream
    from thunderserve.router.http_bodies import Bodies
    from thunderserve.router.http_models import CompletionCall

__all__ = ["CompletionResponse"]

_log = logging.getLogger(__name__)

UNREAD_TIMEOUT_S = 10.0

_STREAM_HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),
]


class CompletionResponse(Response):
    """Serves one request and writes its answer.

    The status line waits for the first token, so that whatever fails before it is a proper
    status; what fails after it is an error event, and the stream ends without `[DONE]`.
    """

    def __init__(self, frontend: Frontend, call: CompletionCall, bodies: Bodies) -> None:
        super().__init__()
        self._frontend = frontend
        self._call = call
        self._bodies = bodies

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Write the answer, or stop working when the client disconnects."""
        write = self._stream(send) if self._call.stream else self._whole(scope, receive, send)
        # The answer is over by then; what may still take time is a client that does not read.
        limit_s = self._frontend.request_timeout_s + UNREAD_TIMEOUT_S
        if not await _unless_disconnected(receive, write, limit_s):
            _log.info("request %s: the client left", self._call.request.request_id)

    async def _whole(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with self._frontend.generate(self._call.request) as stream:
            texts: list[str] = []
            reason = FinishReason.STOP
            async with aclosing(stream.chunks()) as chunks:
                async for chunk in chunks:
                    texts.append(chunk.text)
                    reason = chunk.finish_reason or reason
            body = self._bodies.whole("".join(texts), reason, stream.report())
        await JSONResponse(body)(scope, receive, send)

    async def _stream(self, send: Send) -> None:
        started = False
        try:
            async with self._frontend.generate(self._call.request) as stream:
                async for event in self._events(stream):
                    if not started:
                        started = True
                        await send(_start())
                    await send(_part(event))
        except ThunderServeError as error:
            if not started:
                raise
            await send(_part(_event(error_body(error))))
        except Exception:
            if not started:
                raise
            _log.exception("request %s failed", self._call.request.request_id)
            hidden = ThunderServeError("internal error; the router's log has it")
            await send(_part(_event(error_body(hidden))))
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _events(self, stream: TextStream) -> Any:
        first = self._bodies.first()
        opening = b"" if first is None else _event(first)
        reason = FinishReason.STOP
        async with aclosing(stream.chunks()) as chunks:
            async for chunk in chunks:
                text = _event(self._bodies.piece(chunk.text)) if chunk.text else b""
                if opening or text:
                    yield opening + text
                opening = b""
                reason = chunk.finish_reason or reason
        closing = b"".join(_event(body) for body in self._bodies.last(reason, stream.report()))
        yield opening + closing + b"data: [DONE]\n\n"


async def _unless_disconnected(
    receive: Receive, work: Coroutine[Any, Any, None], limit_s: float
) -> bool:
    """Do the work; False, and the work cancelled, when the client disconnects or takes too long."""
    working = asyncio.ensure_future(work)
    watching = asyncio.ensure_future(_wait_disconnect(receive))
    try:
        await asyncio.wait(
            {working, watching}, timeout=limit_s, return_when=asyncio.FIRST_COMPLETED
        )
        if not working.done():
            return False
        working.result()
        return True
    finally:
        working.cancel()
        watching.cancel()
        await asyncio.gather(working, watching, return_exceptions=True)


async def _wait_disconnect(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _start() -> dict[str, Any]:
    return {"type": "http.response.start", "status": 200, "headers": _STREAM_HEADERS}


def _part(data: bytes) -> dict[str, Any]:
    return {"type": "http.response.body", "body": data, "more_body": True}


def _event(body: dict[str, Any]) -> bytes:
    return b"data: " + json.dumps(body, separators=(",", ":")).encode() + b"\n\n"
