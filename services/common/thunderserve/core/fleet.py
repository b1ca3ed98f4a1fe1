"""The live fleet: workers, routers, their leases' heartbeats, and flips."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from thunderserve.core.errors import InvalidArgumentError
from thunderserve.core.links import LinkMeasurement
from thunderserve.core.plan import Gpu, Group, Phase, Plan

__all__ = [
    "Capabilities",
    "Flip",
    "FlipStep",
    "GroupState",
    "GroupStatus",
    "Heartbeat",
    "Member",
    "Node",
    "PlanView",
    "Router",
    "Switched",
    "Worker",
    "WorkerStatus",
]


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What an engine can do; the planner proposes nothing else.

    Attributes:
        flippable: True when the phase can change without loading weights.
        context_tokens: Prompt and answer together.
        unequal_tp: True when KV cache can be exchanged with an engine of another tp.
        unequal_pp: The same for pp.
    """

    phases: tuple[Phase, ...]
    flippable: bool
    tp: int
    pp: int
    kv_dtype: str
    page_size_tokens: int
    context_tokens: int
    unequal_tp: bool = False
    unequal_pp: bool = False


@dataclass(frozen=True, slots=True)
class Worker:
    """A worker process: the engine of one group, on one node.

    Attributes:
        group_id: The group it serves; also the worker's name.
        instance_id: New at every process start: tells a restart from a return.
        address: Advertised `host:port` of its gRPC server.
        kvlink_address: Advertised `host:port` of its kvlink sidecar.
    """

    group_id: str
    node_id: str
    gpus: tuple[Gpu, ...]
    instance_id: str
    address: str
    kvlink_address: str
    model: str
    capabilities: Capabilities

    def __post_init__(self) -> None:
        for name in ("group_id", "node_id", "instance_id", "address", "model"):
            if not getattr(self, name):
                raise InvalidArgumentError(f"a worker without {name}", param=name)
        if stray := [gpu.id for gpu in self.gpus if gpu.node != self.node_id]:
            raise InvalidArgumentError(
                f"worker {self.group_id} is on node {self.node_id}, but names GPU {stray[0]}",
                param="gpus",
            )


@dataclass(frozen=True, slots=True)
class Router:
    """A router process; `address` is the advertised `host:port` of its gRPC server."""

    id: str
    instance_id: str
    address: str


Member = Worker | Router


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """What a member says at every interval; the fields from `phase` on are a worker's.

    Attributes:
        links: From its kvlink sidecar to others, as far as they were measured.
    """

    plan_epoch: int = 0
    in_flight: int = 0
    phase: Phase | None = None
    weight_loads: int = 0
    process_id: int = 0
    links: tuple[LinkMeasurement, ...] = ()


@dataclass(frozen=True, slots=True)
class WorkerStatus:
    """What a worker answers when it is asked; `switching` is True while its phase changes."""

    group_id: str
    instance_id: str
    phase: Phase
    in_flight: int
    weight_loads: int
    process_id: int
    switching: bool


@dataclass(frozen=True, slots=True)
class Switched:
    """A worker after a change of phase, and what it took: waiting for legs in flight, switching."""

    status: WorkerStatus
    drain_s: float
    switch_s: float


@dataclass(frozen=True, slots=True)
class Node:
    """A host, its GPUs and the groups on it."""

    id: str
    gpus: tuple[Gpu, ...]
    group_ids: tuple[str, ...]


class PlanView(NamedTuple):
    """A published plan and the workers of its groups that were alive then.

    Workers that come, go or restart raise the epoch, so the epoch tells a view from another.
    """

    plan: Plan
    workers: tuple[Worker, ...]

    def worker(self, group_id: str) -> Worker | None:
        """The worker that serves a group, if it is alive."""
        return next((worker for worker in self.workers if worker.group_id == group_id), None)


class GroupState(StrEnum):
    """Where a group stands."""

    SERVING = "SERVING"
    DRAINED = "DRAINED"
    FLIPPING = "FLIPPING"
    LOST = "LOST"


@dataclass(frozen=True, slots=True)
class GroupStatus:
    """A group of the plan and the worker that serves it; no worker means that it is lost."""

    group: Group
    state: GroupState
    worker: Worker | None = None
    heartbeat: Heartbeat | None = None


class FlipStep(StrEnum):
    """The steps of a flip, in order; the last two are its ends.

    ::

        REROUTING -> DRAINING -> SWITCHING -> VERIFYING -> DONE
            |           |            |            |
            +-----------+------------+------------+------> ROLLED_BACK
    """

    REROUTING = "REROUTING"
    DRAINING = "DRAINING"
    SWITCHING = "SWITCHING"
    VERIFYING = "VERIFYING"
    DONE = "DONE"
    ROLLED_BACK = "ROLLED_BACK"


@dataclass(frozen=True, slots=True)
class Flip:
    """One change of a group's phase, as it is recorded at every step.

    Attributes:
        drain_s: Until no request was in flight at the worker.
        switch_s: The engine's change of phase.
        verify_s: From there until control saw the group in its new phase.
        total_s: From the first record to the last, publishing of both plans included.
    """

    id: str
    group_id: str
    from_phase: Phase
    to_phase: Phase
    step: FlipStep
    failure: str = ""
    drain_s: float = 0.0
    switch_s: float = 0.0
    total_s: float = 0.0
    plan_epoch: int = 0
    created_unix_s: float = 0.0
    verify_s: float = 0.0

    @property
    def ended(self) -> bool:
        """True when nothing more will happen to it."""
        return self.step in {FlipStep.DONE, FlipStep.ROLLED_BACK}
