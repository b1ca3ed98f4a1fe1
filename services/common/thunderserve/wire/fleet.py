"""Workers, routers, heartbeats, nodes, groups' states and flips."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from thunderserve.api.control.v1 import control_pb2
from thunderserve.api.types.v1 import types_pb2
from thunderserve.api.worker.v1 import worker_pb2
from thunderserve.core.errors import InvalidArgumentError
from thunderserve.core.fleet import (
    Capabilities,
    Flip,
    GroupStatus,
    Heartbeat,
    Member,
    Node,
    Router,
    Switched,
    Worker,
    WorkerStatus,
)
from thunderserve.wire.enums import (
    flip_step_from_proto,
    flip_step_to_proto,
    group_state_from_proto,
    group_state_to_proto,
    phase_from_proto,
    phase_to_proto,
)
from thunderserve.wire.links import measurement_from_proto, measurement_to_proto
from thunderserve.wire.plans import (
    gpu_from_proto,
    gpu_to_proto,
    group_from_proto,
    group_to_proto,
    timestamp_from_unix_s,
    unix_s_from_timestamp,
)

if TYPE_CHECKING:
    from thunderserve.core.links import LinkMeasurement

__all__ = [
    "flip_from_proto",
    "flip_to_proto",
    "group_status_from_proto",
    "group_status_to_proto",
    "heartbeat_from_proto",
    "heartbeat_to_proto",
    "hello_from_proto",
    "hello_to_proto",
    "node_from_proto",
    "node_to_proto",
    "switched_from_proto",
    "worker_from_proto",
    "worker_status_from_proto",
    "worker_status_to_proto",
    "worker_to_proto",
]


def worker_to_proto(worker: Worker) -> control_pb2.Worker:
    """A worker process."""
    can = worker.capabilities
    return control_pb2.Worker(
        group_id=worker.group_id,
        node_id=worker.node_id,
        gpus=[gpu_to_proto(gpu) for gpu in worker.gpus],
        instance_id=worker.instance_id,
        address=worker.address,
        kvlink_address=worker.kvlink_address,
        model=worker.model,
        capabilities=control_pb2.Capabilities(
            phases=[phase_to_proto(phase) for phase in can.phases],
            flippable=can.flippable,
            tp=can.tp,
            pp=can.pp,
            kv_dtype=can.kv_dtype,
            page_size_tokens=can.page_size_tokens,
            context_tokens=can.context_tokens,
            unequal_tp=can.unequal_tp,
            unequal_pp=can.unequal_pp,
        ),
    )


def worker_from_proto(message: control_pb2.Worker) -> Worker:
    """Raises InvalidArgumentError for a missing name or a GPU of another node."""
    can = message.capabilities
    return Worker(
        group_id=message.group_id,
        node_id=message.node_id,
        gpus=tuple(gpu_from_proto(gpu) for gpu in message.gpus),
        instance_id=message.instance_id,
        address=message.address,
        kvlink_address=message.kvlink_address,
        model=message.model,
        capabilities=Capabilities(
            phases=tuple(phase_from_proto(phase) for phase in can.phases),
            flippable=can.flippable,
            tp=can.tp,
            pp=can.pp,
            kv_dtype=can.kv_dtype,
            page_size_tokens=can.page_size_tokens,
            context_tokens=can.context_tokens,
            unequal_tp=can.unequal_tp,
            unequal_pp=can.unequal_pp,
        ),
    )


def hello_to_proto(member: Member) -> control_pb2.Hello:
    """What a member says of itself when it attaches."""
    if isinstance(member, Worker):
        return control_pb2.Hello(worker=worker_to_proto(member))
    router = control_pb2.Router(
        id=member.id, instance_id=member.instance_id, address=member.address
    )
    return control_pb2.Hello(router=router)


def hello_from_proto(message: control_pb2.Hello) -> Member:
    """Raises InvalidArgumentError for a hello of nobody."""
    if message.HasField("worker"):
        return worker_from_proto(message.worker)
    if message.HasField("router"):
        r = message.router
        return Router(id=r.id, instance_id=r.instance_id, address=r.address)
    raise InvalidArgumentError("hello names neither a worker nor a router", param="hello")


def heartbeat_to_proto(heartbeat: Heartbeat) -> control_pb2.Heartbeat:
    """A heartbeat; a router's phase is unspecified on the wire."""
    return control_pb2.Heartbeat(
        plan_epoch=heartbeat.plan_epoch,
        in_flight_count=heartbeat.in_flight,
        phase=None if heartbeat.phase is None else phase_to_proto(heartbeat.phase),
        weight_load_count=heartbeat.weight_loads,
        process_id=heartbeat.process_id,
        links=map(measurement_to_proto, heartbeat.links),
    )


def heartbeat_from_proto(message: control_pb2.Heartbeat) -> Heartbeat:
    """A heartbeat; an unspecified phase is None."""
    has_phase = message.phase != types_pb2.PHASE_UNSPECIFIED
    return Heartbeat(
        plan_epoch=message.plan_epoch,
        in_flight=message.in_flight_count,
        phase=phase_from_proto(message.phase) if has_phase else None,
        weight_loads=message.weight_load_count,
        process_id=message.process_id,
        links=_links_from_proto(message),
    )


def _links_from_proto(message: control_pb2.Heartbeat) -> tuple[LinkMeasurement, ...]:
    """Those that can be read: a member's lease must not hang on a figure about a link."""
    links = []
    for link in message.links:
        with contextlib.suppress(InvalidArgumentError):
            links.append(measurement_from_proto(link))
    return tuple(links)


def node_to_proto(node: Node) -> control_pb2.Node:
    """A host."""
    gpus = [gpu_to_proto(gpu) for gpu in node.gpus]
    return control_pb2.Node(id=node.id, gpus=gpus, group_ids=node.group_ids)


def node_from_proto(message: control_pb2.Node) -> Node:
    """A host."""
    gpus = tuple(gpu_from_proto(gpu) for gpu in message.gpus)
    return Node(id=message.id, gpus=gpus, group_ids=tuple(message.group_ids))


def group_status_to_proto(status: GroupStatus) -> control_pb2.GroupStatus:
    """Where a group stands."""
    beat = status.heartbeat
    return control_pb2.GroupStatus(
        group=group_to_proto(status.group),
        state=group_state_to_proto(status.state),
        worker=None if status.worker is None else worker_to_proto(status.worker),
        heartbeat=None if beat is None else heartbeat_to_proto(beat),
    )


def group_status_from_proto(message: control_pb2.GroupStatus) -> GroupStatus:
    """Where a group stands."""
    has_beat = message.HasField("heartbeat")
    return GroupStatus(
        group=group_from_proto(message.group),
        state=group_state_from_proto(message.state),
        worker=worker_from_proto(message.worker) if message.HasField("worker") else None,
        heartbeat=heartbeat_from_proto(message.heartbeat) if has_beat else None,
    )


def flip_to_proto(flip: Flip) -> control_pb2.Flip:
    """One change of phase."""
    return control_pb2.Flip(
        id=flip.id,
        group_id=flip.group_id,
        from_phase=phase_to_proto(flip.from_phase),
        to_phase=phase_to_proto(flip.to_phase),
        step=flip_step_to_proto(flip.step),
        failure=flip.failure,
        drain_s=flip.drain_s,
        switch_s=flip.switch_s,
        total_s=flip.total_s,
        plan_epoch=flip.plan_epoch,
        create_time=timestamp_from_unix_s(flip.created_unix_s),
        verify_s=flip.verify_s,
    )


def flip_from_proto(message: control_pb2.Flip) -> Flip:
    """One change of phase."""
    return Flip(
        id=message.id,
        group_id=message.group_id,
        from_phase=phase_from_proto(message.from_phase),
        to_phase=phase_from_proto(message.to_phase),
        step=flip_step_from_proto(message.step),
        failure=message.failure,
        drain_s=message.drain_s,
        switch_s=message.switch_s,
        total_s=message.total_s,
        plan_epoch=message.plan_epoch,
        created_unix_s=unix_s_from_timestamp(message.create_time),
        verify_s=message.verify_s,
    )


def worker_status_to_proto(status: WorkerStatus) -> worker_pb2.WorkerStatus:
    """What a worker answers."""
    return worker_pb2.WorkerStatus(
        group_id=status.group_id,
        instance_id=status.instance_id,
        phase=phase_to_proto(status.phase),
        in_flight_count=status.in_flight,
        weight_load_count=status.weight_loads,
        process_id=status.process_id,
        switching=status.switching,
    )


def worker_status_from_proto(message: worker_pb2.WorkerStatus) -> WorkerStatus:
    """What a worker answers."""
    return WorkerStatus(
        group_id=message.group_id,
        instance_id=message.instance_id,
        phase=phase_from_proto(message.phase),
        in_flight=message.in_flight_count,
        weight_loads=message.weight_load_count,
        process_id=message.process_id,
        switching=message.switching,
    )


def switched_from_proto(message: worker_pb2.SwitchPhaseResponse) -> Switched:
    """A worker after a change of phase."""
    return Switched(worker_status_from_proto(message.status), message.drain_s, message.switch_s)
