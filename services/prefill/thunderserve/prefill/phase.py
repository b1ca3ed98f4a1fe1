"""Phase PREFILL, as a worker finds it by entry point."""

from __future__ import annotations

from typing import TYPE_CHECKING

from thunderserve.api.worker.v1 import worker_pb2_grpc
from thunderserve.core.plan import Phase
from thunderserve.prefill.servicer import PrefillServicer

if TYPE_CHECKING:
    import grpc

    from thunderserve.engine.host import EngineHost

__all__ = ["PREFILL", "PrefillPhase"]


class PrefillPhase:
    """The prefill legs' way to the host."""

    phase = Phase.PREFILL

    def register(self, server: grpc.aio.Server, host: EngineHost) -> None:
        """Add PrefillService."""
        worker_pb2_grpc.add_PrefillServiceServicer_to_server(PrefillServicer(host), server)


PREFILL = PrefillPhase()
