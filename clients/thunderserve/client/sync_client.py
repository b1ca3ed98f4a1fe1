"""The synchronous client."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self, Unpack

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
from thunderserve.runtime.channel import CHANNEL_OPTIONS

if TYPE_CHECKING:
    from collections.abc import Iterable
    from types import TracebackType

    from thunderserve.client.options import GenerateOptions
    from thunderserve.client.types import Generation, Model, RouterStatus, TokenDelta

__all__ = ["Client", "GenerationStream"]


class GenerationStream:
    """The deltas of one answer as they arrive; leaving it early cancels the request."""

    def __init__(
        self, call: Iterable[router_pb2.GenerateResponse], peer: str, timeout_s: float
    ) -> None:
        self._call: Any = call  # grpc's own type for it, which can `cancel`, has no public name
        self._responses = iter(call)
        self._peer, self._timeout_s = peer, timeout_s
        self._answer = AnswerBuilder()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> TokenDelta:
        try:
            return self._answer.add(next(self._responses))
        except StopIteration:
            self._answer.generation()  # a stream that was cut is an error, not an end
            raise
        except grpc.RpcError as error:
            raise failure_of(error, self._peer, self._timeout_s) from None

    def result(self) -> Generation:
        """Read the rest and return the whole answer."""
        for _ in self:
            pass
        return self._answer.generation()

    def cancel(self) -> None:
        """Give the request up; the fleet frees what it held. Harmless after the end."""
        self._call.cancel()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.cancel()


class Client:
    """A connection to one router.

    Args:
        address: `host:port` of the router's gRPC server.
        timeout_s: Deadline of every call that names none of its own.
    """

    def __init__(self, address: str, *, timeout_s: float = 300.0) -> None:
        self._peer = f"the router at {address}"
        self._timeout_s = timeout_s
        self._channel = grpc.insecure_channel(address, options=CHANNEL_OPTIONS)
        self._stub = RouterServiceStub(self._channel)

    def stream(
        self, prompt: str | None = None, **options: Unpack[GenerateOptions]
    ) -> GenerationStream:
        """Generate text, token by token; `GenerateOptions` lists the keywords.

        Raises:
            InvalidArgumentError: A value is out of its range; `error.param` names it.
        """
        timeout_s = options.get("timeout_s", self._timeout_s)
        call = self._stub.Generate(build_request(prompt, options), timeout=timeout_s)
        return GenerationStream(call, self._peer, timeout_s)

    def generate(self, prompt: str | None = None, **options: Unpack[GenerateOptions]) -> Generation:
        """Generate a whole answer; `GenerateOptions` lists the keywords.

        Raises:
            ThunderServeError: It failed; the class says how.
        """
        with self.stream(prompt, **options) as stream:
            return stream.result()

    def models(self) -> tuple[Model, ...]:
        """What the fleet serves now; empty while it cannot serve."""
        try:
            response = self._stub.ListModels(
                router_pb2.ListModelsRequest(), timeout=self._timeout_s
            )
        except grpc.RpcError as error:
            raise failure_of(error, self._peer, self._timeout_s) from None
        return models_from_proto(response)

    def status(self) -> RouterStatus:
        """Plan, load and counts as this router sees them."""
        try:
            response = self._stub.GetRouterStatus(
                router_pb2.GetRouterStatusRequest(), timeout=self._timeout_s
            )
        except grpc.RpcError as error:
            raise failure_of(error, self._peer, self._timeout_s) from None
        return router_status_from_proto(response)

    def close(self) -> None:
        """Close the connection; running streams are cancelled."""
        self._channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()
