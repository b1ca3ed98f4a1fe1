"""The asyncio client."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self, Unpack

import grpc

from thunderserve.api.router.v1 import router_pb2
from thunderserve.api.router.v1.router_pb2_grpc import RouterServiceStub
from thunderserve.client.failures import failure_of
from thunderserve.client.messages import (
    AnswerBuilder,
    build_request,
    models_from_proto,
    router_status_from_proto,
)
from thunderserve.runtime.channel import open_channel

if TYPE_CHECKING:
    from types import TracebackType

    from thunderserve.client.options import GenerateOptions
    from thunderserve.client.types import Generation, Model, RouterStatus, TokenDelta

__all__ = ["AsyncClient", "AsyncGenerationStream"]


class AsyncGenerationStream:
    """The deltas of one answer as they arrive; leaving it early cancels the request."""

    def __init__(
        self,
        call: grpc.aio.UnaryStreamCall[router_pb2.GenerateRequest, router_pb2.GenerateResponse],
        peer: str,
        timeout_s: float,
    ) -> None:
        self._call = call
        self._responses = aiter(call)
        self._peer, self._timeout_s = peer, timeout_s
        self._answer = AnswerBuilder()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> TokenDelta:
        try:
            return self._answer.add(await anext(self._responses))
        except StopAsyncIteration:
            self._answer.generation()  # a stream that was cut is an error, not an end
            raise
        except grpc.aio.AioRpcError as error:
            raise failure_of(error, self._peer, self._timeout_s) from None

    async def result(self) -> Generation:
        """Read the rest and return the whole answer."""
        async for _ in self:
            pass
        return self._answer.generation()

    def cancel(self) -> None:
        """Give the request up; the fleet frees what it held. Harmless after the end."""
        self._call.cancel()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.cancel()


class AsyncClient:
    """A connection to one router; make it inside a running event loop.

    Args:
        address: `host:port` of the router's gRPC server.
        timeout_s: Deadline of every call that names none of its own.
    """

    def __init__(self, address: str, *, timeout_s: float = 300.0) -> None:
        self._peer = f"the router at {address}"
        self._timeout_s = timeout_s
        self._channel = open_channel(address)
        self._stub = RouterServiceStub(self._channel)

    def stream(
        self, prompt: str | None = None, **options: Unpack[GenerateOptions]
    ) -> AsyncGenerationStream:
        """Generate text, token by token; `GenerateOptions` lists the keywords.

        Raises:
            InvalidArgumentError: A value is out of its range; `error.param` names it.
        """
        timeout_s = options.get("timeout_s", self._timeout_s)
        call = self._stub.Generate(build_request(prompt, options), timeout=timeout_s)
        return AsyncGenerationStream(call, self._peer, timeout_s)

    async def generate(
        self, prompt: str | None = None, **options: Unpack[GenerateOptions]
    ) -> Generation:
        """Generate a whole answer; `GenerateOptions` lists the keywords.

        Raises:
            ThunderServeError: It failed; the class says how.
        """
        async with self.stream(prompt, **options) as stream:
            return await stream.result()

    async def models(self) -> tuple[Model, ...]:
        """What the fleet serves now; empty while it cannot serve."""
        try:
            response = await self._stub.ListModels(
                router_pb2.ListModelsRequest(), timeout=self._timeout_s
            )
        except grpc.aio.AioRpcError as error:
            raise failure_of(error, self._peer, self._timeout_s) from None
        return models_from_proto(response)

    async def status(self) -> RouterStatus:
        """Plan, load and counts as this router sees them."""
        try:
            response = await self._stub.GetRouterStatus(
                router_pb2.GetRouterStatusRequest(), timeout=self._timeout_s
            )
        except grpc.aio.AioRpcError as error:
            raise failure_of(error, self._peer, self._timeout_s) from None
        return router_status_from_proto(response)

    async def close(self) -> None:
        """Close the connection; running streams are cancelled."""
        await self._channel.close(None)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()
