"""DecodeService: the decode leg of a request, and whole requests where the host is colocated."""

from __future__ import annotations

from contextlib import aclosing
from typing import TYPE_CHECKING

from thunderserve.api.worker.v1 import worker_pb2, worker_pb2_grpc
from thunderserve.wire.requests import chunk_to_proto, decode_leg_from_proto

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import grpc

    from thunderserve.engine.host import EngineHost

    _Context = grpc.aio.ServicerContext[worker_pb2.DecodeRequest, worker_pb2.DecodeResponse]

__all__ = ["DecodeServicer"]


class DecodeServicer(worker_pb2_grpc.DecodeServiceServicer):
    """Runs decode legs on a host; a cancelled call ends its leg in the engine."""

    def __init__(self, host: EngineHost) -> None:
        self._host = host

    async def Decode(  # noqa: N802 - the service's name
        self, request: worker_pb2.DecodeRequest, context: _Context
    ) -> AsyncIterator[worker_pb2.DecodeResponse]:
        """Every token of the answer."""
        del context
        async with aclosing(self._host.decode(decode_leg_from_proto(request))) as chunks:
            async for chunk in chunks:
                yield chunk_to_proto(chunk)
