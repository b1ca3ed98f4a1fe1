"""PrefillService: the prefill leg of a request."""

from __future__ import annotations

from contextlib import aclosing
from typing import TYPE_CHECKING

from thunderserve.api.worker.v1 import worker_pb2, worker_pb2_grpc
from thunderserve.core.request import TransferReport
from thunderserve.wire.requests import prefill_leg_from_proto, transfer_report_to_proto

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import grpc

    from thunderserve.engine.host import EngineHost

    _Context = grpc.aio.ServicerContext[worker_pb2.PrefillRequest, worker_pb2.PrefillResponse]

__all__ = ["PrefillServicer"]


class PrefillServicer(worker_pb2_grpc.PrefillServiceServicer):
    """Runs prefill legs on a host; a cancelled call ends its leg in the engine."""

    def __init__(self, host: EngineHost) -> None:
        self._host = host

    async def Prefill(  # noqa: N802 - the service's name
        self, request: worker_pb2.PrefillRequest, context: _Context
    ) -> AsyncIterator[worker_pb2.PrefillResponse]:
        """The first token, then the transfer's report."""
        del context
        async with aclosing(self._host.prefill(prefill_leg_from_proto(request))) as events:
            async for event in events:
                if isinstance(event, TransferReport):
                    report = transfer_report_to_proto(event)
                    yield worker_pb2.PrefillResponse(transfer=report)
                else:
                    yield worker_pb2.PrefillResponse(first_token_id=event)
