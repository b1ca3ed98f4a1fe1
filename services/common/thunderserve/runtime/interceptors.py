"""Server interceptors: our errors become rich statuses, anything else one logged line."""

from __future__ import annotations

import contextlib
import functools
import logging
from typing import TYPE_CHECKING, Any, NoReturn

import grpc

from thunderserve.core.errors import ThunderServeError
from thunderserve.runtime.errors import rpc_status_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    _Context = grpc.aio.ServicerContext[Any, Any]
    _Handler = grpc.RpcMethodHandler[Any, Any]

__all__ = ["ErrorInterceptor"]

_log = logging.getLogger(__name__)


class ErrorInterceptor(grpc.aio.ServerInterceptor):
    """Turns what a handler raises into a status; no traceback ever reaches a caller."""

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[_Handler | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> _Handler | None:
        """Wrap the handler of one call."""
        handler = await continuation(handler_call_details)
        if handler is None:
            return handler
        method = handler_call_details.method
        for arity in ("unary_unary", "stream_unary"):
            if inner := getattr(handler, arity):
                return _rebuilt(handler, arity, _guard_unary(inner, method))
        for arity in ("unary_stream", "stream_stream"):
            if inner := getattr(handler, arity):
                return _rebuilt(handler, arity, _guard_stream(inner, method))
        return handler


def _rebuilt(handler: _Handler, arity: str, behaviour: Any) -> _Handler:
    make: Callable[..., _Handler] = getattr(grpc, f"{arity}_rpc_method_handler")
    return make(behaviour, handler.request_deserializer, handler.response_serializer)


def _guard_unary(inner: Any, method: str) -> Any:
    @functools.wraps(inner)
    async def guarded(request: Any, context: _Context) -> Any:
        try:
            return await inner(request, context)
        except ThunderServeError as error:
            await _abort(context, error)
        except (grpc.aio.AbortError, grpc.aio.BaseError):
            raise
        except Exception:  # noqa: BLE001 - the last line of defence of every call
            _log.exception("%s failed", method)
            await _abort(context, ThunderServeError("internal error; the server's log has it"))

    return guarded


def _guard_stream(inner: Any, method: str) -> Any:
    @functools.wraps(inner)
    async def guarded(request: Any, context: _Context) -> AsyncIterator[Any]:
        try:
            # Closed here, not when it is collected: a handler frees its things in `finally`.
            async with contextlib.aclosing(inner(request, context)) as responses:
                async for response in responses:
                    yield response
        except ThunderServeError as error:
            await _abort(context, error)
        except (grpc.aio.AbortError, grpc.aio.BaseError):
            raise
        except Exception:  # noqa: BLE001 - the last line of defence of every call
            _log.exception("%s failed", method)
            await _abort(context, ThunderServeError("internal error; the server's log has it"))

    return guarded


async def _abort(context: _Context, error: ThunderServeError) -> NoReturn:
    # `abort_with_status` is not implemented by grpc.aio; this is what it would do.
    status = rpc_status_of(error)
    await context.abort(status.code, status.details, status.trailing_metadata)
    raise AssertionError("abort always raises")
