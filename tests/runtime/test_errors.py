"""Errors cross gRPC and come out as they went in; nothing else ever gets out."""

from __future__ import annotations

import logging
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from thunderserve.core import errors
from thunderserve.runtime.channel import open_channel
from thunderserve.runtime.errors import error_from_rpc, exit_status, http_status, rpc_status_of
from thunderserve.runtime.rpc import serve_rpc, stop_server

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

KINDS = [getattr(errors, name) for name in errors.__all__]


@asynccontextmanager
async def raising(address: str, error: BaseException | None) -> AsyncIterator[Any]:
    """A server whose two calls raise an error, and a channel to it."""

    async def unary(request: bytes, context: object) -> bytes:
        del request, context
        if error is not None:
            raise error
        return b"fine"

    async def stream(request: bytes, context: object) -> AsyncIterator[bytes]:
        yield b"first"
        yield await unary(request, context)

    handlers: dict[str, grpc.RpcMethodHandler[Any, Any]] = {
        "Unary": grpc.unary_unary_rpc_method_handler(unary),
        "Stream": grpc.unary_stream_rpc_method_handler(stream),
    }
    generic = grpc.method_handlers_generic_handler("test", handlers)
    server = await serve_rpc(address, lambda s: s.add_generic_rpc_handlers((generic,)))
    async with open_channel(address) as channel:
        yield channel
    await stop_server(server, grace_s=0)


async def unary_error(channel: Any) -> errors.ThunderServeError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await channel.unary_unary("/test/Unary")(b"")
    return error_from_rpc(caught.value)


@pytest.mark.parametrize("kind", KINDS)
async def test_error_arrives_as_itself_when_a_call_fails(
    kind: type[errors.ThunderServeError], unix_address: str
) -> None:
    """Class and message survive, for every class of the tree."""
    async with raising(unix_address, kind("what is wrong, and the way out")) as channel:
        error = await unary_error(channel)
    assert type(error) is kind
    assert str(error) == "what is wrong, and the way out"


async def test_error_keeps_its_fields_when_it_has_some(unix_address: str) -> None:
    """The offending field, and when to try again."""
    async with raising(unix_address, errors.InvalidArgumentError("no", param="p")) as channel:
        error = await unary_error(channel)
    assert isinstance(error, errors.InvalidArgumentError)
    assert error.param == "p"


async def test_error_arrives_after_responses_when_a_stream_fails(unix_address: str) -> None:
    """What came before it is not lost."""
    busy = errors.OverloadedError("busy", retry_after_s=2.5)
    async with raising(unix_address, busy) as channel:
        call = channel.unary_stream("/test/Stream")(b"")
        assert await call.read() == b"first"
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call.read()
    error = error_from_rpc(caught.value)
    assert isinstance(error, errors.OverloadedError)
    assert error.retry_after_s == 2.5


async def test_bug_is_hidden_and_logged_when_a_handler_fails(
    unix_address: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A caller learns nothing of our insides; the log has the traceback."""
    with caplog.at_level(logging.ERROR):
        async with raising(unix_address, ZeroDivisionError("secret path /x")) as channel:
            error = await unary_error(channel)
    assert "secret" not in str(error)
    assert "internal error" in str(error)
    assert "ZeroDivisionError" in caplog.text


async def test_error_is_unavailable_when_nobody_listens(unix_address: str) -> None:
    """A status that is not ours becomes the nearest class."""
    async with open_channel(unix_address) as channel:
        error = await unary_error(channel)
    assert isinstance(error, errors.UnavailableError)


@pytest.mark.parametrize("kind", KINDS)
def test_error_has_a_status_everywhere(kind: type[errors.ThunderServeError]) -> None:
    """gRPC, HTTP and exit status exist for every class, and agree on whose fault it is."""
    error = kind("x")
    assert 400 <= http_status(error) < 600
    assert exit_status(error) > 0
    assert rpc_status_of(error).code is not grpc.StatusCode.OK
