"""Phase DECODE, as a worker finds it by entry point."""

from __future__ import annotations

from typing import TYPE_CHECKING

from thunderserve.api.worker.v1 import worker_pb2_grpc
from thunderserve.core.plan import Phase
from thunderserve.decode.servicer import DecodeServicer

if TYPE_CHECKING:
    import grpc

    from thunderserve.engine.host import EngineHost

__all__ = ["DECODE", "DecodePhase"]


class DecodePhase:
    """The decode legs' way to the host."""

    phase = Phase.DECODE

    def register(self, server: grpc.aio.Server, host: EngineHost) -> None:
        """Add DecodeService."""
        worker_pb2_grpc.add_DecodeServiceServicer_to_server(DecodeServicer(host), server)


DECODE = DecodePhase()
