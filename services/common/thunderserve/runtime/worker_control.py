"""A worker's own service, as the control plane calls it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import grpc
from google.protobuf.duration_pb2 import Duration

from thunderserve.api.worker.v1 import worker_pb2
from thunderserve.api.worker.v1.worker_pb2_grpc import WorkerServiceStub
from thunderserve.runtime.channel import open_channel
from thunderserve.runtime.errors import error_from_rpc
from thunderserve.wire.enums import phase_to_proto
from thunderserve.wire.fleet import switched_from_proto, worker_status_from_proto

if TYPE_CHECKING:
    from thunderserve.core.fleet import Switched, WorkerStatus
    from thunderserve.core.plan import Phase

__all__ = ["WorkerControl"]

STATUS_TIMEOUT_S = 2.0
# An engine takes seconds to change its phase; this is when it is taken for lost.
SWITCH_TIMEOUT_S = 60.0


class WorkerControl:
    """Asks one worker how it is, and has it change its phase.

    Args:
        address: `host:port` of its gRPC server.
    """

    def __init__(self, address: str) -> None:
        self._channel = open_channel(address)
        self._stub = WorkerServiceStub(self._channel)

    async def status(self) -> WorkerStatus:
        """How the worker is now.

        Raises:
            ThunderServeError: It does not answer.
        """
        try:
            answer = await self._stub.GetWorkerStatus(
                worker_pb2.GetWorkerStatusRequest(), timeout=STATUS_TIMEOUT_S
            )
        except grpc.aio.AioRpcError as error:
            raise error_from_rpc(error) from None
        return worker_status_from_proto(answer)

    async def switch_phase(
        self, phase: Phase, *, drain_timeout_s: float, plan_epoch: int
    ) -> Switched:
        """Drain, then change the phase; returns when both are done.

        Raises:
            ThunderServeError: What the worker raised, or it does not answer.
        """
        drain_timeout = Duration()
        drain_timeout.FromNanoseconds(round(drain_timeout_s * 1e9))
        request = worker_pb2.SwitchPhaseRequest(
            phase=phase_to_proto(phase), drain_timeout=drain_timeout, plan_epoch=plan_epoch
        )
        timeout_s = drain_timeout_s + SWITCH_TIMEOUT_S
        try:
            answer = await self._stub.SwitchPhase(request, timeout=timeout_s)
        except grpc.aio.AioRpcError as error:
            raise error_from_rpc(error) from None
        return switched_from_proto(answer)

    async def close(self) -> None:
        """Close the connection."""
        await self._channel.close(None)
