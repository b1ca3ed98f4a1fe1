"""WorkerService: the worker itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

from thunderserve.api.worker.v1 import worker_pb2, worker_pb2_grpc
from thunderserve.engine.states import HostState
from thunderserve.wire.enums import phase_from_proto, phase_to_proto

if TYPE_CHECKING:
    import grpc

    from thunderserve.engine.host import EngineHost

    _StatusContext = grpc.aio.ServicerContext[
        worker_pb2.GetWorkerStatusRequest, worker_pb2.WorkerStatus
    ]
    _SwitchContext = grpc.aio.ServicerContext[
        worker_pb2.SwitchPhaseRequest, worker_pb2.SwitchPhaseResponse
    ]

__all__ = ["WorkerServicer"]


class WorkerServicer(worker_pb2_grpc.WorkerServiceServicer):
    """Tells how the worker is, and changes its phase.

    Args:
        host: The engine's host.
        group_id: The worker's name.
        instance_id: Of this process.
        drain_timeout_s: For a switch that names none.
    """

    def __init__(
        self, host: EngineHost, *, group_id: str, instance_id: str, drain_timeout_s: float
    ) -> None:
        self._host = host
        self._group_id = group_id
        self._instance_id = instance_id
        self._drain_timeout_s = drain_timeout_s

    async def GetWorkerStatus(  # noqa: N802 - the service's name
        self, request: worker_pb2.GetWorkerStatusRequest, context: _StatusContext
    ) -> worker_pb2.WorkerStatus:
        """How the worker is now."""
        del request, context
        return self._status()

    async def SwitchPhase(  # noqa: N802 - the service's name
        self, request: worker_pb2.SwitchPhaseRequest, context: _SwitchContext
    ) -> worker_pb2.SwitchPhaseResponse:
        """Drain and change the phase."""
        del context
        timeout_s = self._drain_timeout_s
        if request.HasField("drain_timeout"):
            timeout_s = request.drain_timeout.ToTimedelta().total_seconds()
        report = await self._host.switch(
            phase_from_proto(request.phase),
            drain_timeout_s=timeout_s,
            plan_epoch=request.plan_epoch,
        )
        return worker_pb2.SwitchPhaseResponse(
            status=self._status(), drain_s=report.drain_s, switch_s=report.switch_s
        )

    def _status(self) -> worker_pb2.WorkerStatus:
        beat = self._host.heartbeat
        return worker_pb2.WorkerStatus(
            group_id=self._group_id,
            instance_id=self._instance_id,
            phase=phase_to_proto(self._host.phase),
            in_flight_count=beat.in_flight,
            weight_load_count=beat.weight_loads,
            process_id=beat.process_id,
            switching=self._host.state is HostState.SWITCHING,
        )
