"""Members and their heartbeats, seen as workers, nodes and groups."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from thunderserve.core.errors import ConflictError, InvalidArgumentError
from thunderserve.core.fleet import (
    GroupState,
    GroupStatus,
    Heartbeat,
    Member,
    Node,
    Router,
    Worker,
)
from thunderserve.core.links import MeasuredLink
from thunderserve.core.plan import Phase

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from thunderserve.control.standing import Intent, Standing
    from thunderserve.core.plan import Gpu, Group

__all__ = [
    "Inventory",
    "LiveRouter",
    "LiveWorker",
    "check_member",
    "group_statuses",
    "inventory_of",
    "lagging_routers",
    "links_of",
    "nodes_of",
]


@dataclass(frozen=True, slots=True)
class LiveWorker:
    """A worker whose lease lives, and what it said last."""

    worker: Worker
    heartbeat: Heartbeat


@dataclass(frozen=True, slots=True)
class LiveRouter:
    """A router whose lease lives, and what it said last."""

    router: Router
    heartbeat: Heartbeat


@dataclass(frozen=True, slots=True)
class Inventory:
    """Everybody whose lease lives, ordered by name."""

    workers: tuple[LiveWorker, ...] = ()
    routers: tuple[LiveRouter, ...] = ()

    def worker(self, group_id: str) -> LiveWorker | None:
        """The worker of that group, if it is alive."""
        return next((live for live in self.workers if live.worker.group_id == group_id), None)

    @property
    def highest_epoch(self) -> int:
        """The highest epoch that any member follows."""
        members: tuple[LiveWorker | LiveRouter, ...] = (*self.workers, *self.routers)
        return max((live.heartbeat.plan_epoch for live in members), default=0)


def inventory_of(members: Iterable[tuple[Member, Heartbeat]]) -> Inventory:
    """The inventory of these members."""
    workers: list[LiveWorker] = []
    routers: list[LiveRouter] = []
    for member, heartbeat in members:
        if isinstance(member, Worker):
            workers.append(LiveWorker(member, heartbeat))
        else:
            routers.append(LiveRouter(member, heartbeat))
    workers.sort(key=lambda live: live.worker.group_id)
    routers.sort(key=lambda live: live.router.id)
    return Inventory(tuple(workers), tuple(routers))


def check_member(
    member: Member,
    inventory: Inventory,
    model: str,
    group_of: Callable[[Worker, Phase], Group],
) -> None:
    """Refuse a member that cannot be part of this fleet.

    Raises:
        InvalidArgumentError: It serves another model, or its GPUs make no group.
        ConflictError: It claims the name of another live process, or a GPU that one holds.
    """
    _check_name(member, inventory)
    if isinstance(member, Router):
        return
    if member.model != model:
        raise InvalidArgumentError(
            f"worker {member.group_id} serves {member.model!r}; this fleet serves {model!r}",
            param="model",
        )
    group_of(member, Phase.COLOCATED)
    claimed = {gpu.id for gpu in member.gpus}
    for live in inventory.workers:
        taken = sorted(claimed & {gpu.id for gpu in live.worker.gpus})
        if taken and live.worker.group_id != member.group_id:
            raise ConflictError(
                f"worker {member.group_id} claims GPU {taken[0]}, which worker "
                f"{live.worker.group_id} holds"
            )


def _check_name(member: Member, inventory: Inventory) -> None:
    holders: list[tuple[str, Member]]
    if isinstance(member, Router):
        name, holders = member.id, [(each.router.id, each.router) for each in inventory.routers]
    else:
        name = member.group_id
        holders = [(each.worker.group_id, each.worker) for each in inventory.workers]
    for holder_name, holder in holders:
        if holder_name == name and holder.instance_id != member.instance_id:
            raise ConflictError(
                f"another process at {holder.address} serves as {name} until its lease ends; "
                "stop it, or choose another name"
            )


def nodes_of(inventory: Inventory) -> tuple[Node, ...]:
    """The hosts of the live workers."""
    gpus: dict[str, dict[str, Gpu]] = {}
    groups: dict[str, list[str]] = {}
    for live in inventory.workers:
        node_id = live.worker.node_id
        gpus.setdefault(node_id, {}).update({gpu.id: gpu for gpu in live.worker.gpus})
        groups.setdefault(node_id, []).append(live.worker.group_id)
    return tuple(
        Node(node_id, tuple(gpus[node_id].values()), tuple(groups[node_id]))
        for node_id in sorted(gpus)
    )


def links_of(inventory: Inventory) -> tuple[MeasuredLink, ...]:
    """What live workers' sidecars measured of each other, by from and to.

    A peer that is no live worker's sidecar is left out: its worker is gone.
    """
    by_address = {each.worker.kvlink_address: each.worker for each in inventory.workers}
    links = [
        MeasuredLink(
            live.worker.group_id, to.group_id, live.worker.node_id, to.node_id, measurement
        )
        for live in inventory.workers
        for measurement in live.heartbeat.links
        if (to := by_address.get(measurement.peer_address)) is not None
    ]
    return tuple(sorted(links, key=lambda link: (link.from_group, link.to_group)))


def group_statuses(
    inventory: Inventory,
    standing: Standing | None,
    group_of: Callable[[Worker, Phase], Group],
) -> tuple[GroupStatus, ...]:
    """Every group of the plan, then the live groups that it does not route to, by id.

    Args:
        inventory: Who is alive.
        standing: The published plan; None before the first.
        group_of: The group that a worker serves, for those outside the plan.
    """
    statuses: list[GroupStatus] = []
    planned = () if standing is None else standing.plan.groups
    for group in planned:
        live = inventory.worker(group.id)
        state = _state(group.id, live, standing.intent) if standing else GroupState.LOST
        statuses.append(
            GroupStatus(group, state, live.worker, live.heartbeat)
            if live
            else GroupStatus(group, state)
        )
    known = {group.id for group in planned}
    for live in inventory.workers:
        if live.worker.group_id not in known and live.heartbeat.phase is not None:
            group = group_of(live.worker, live.heartbeat.phase)
            statuses.append(GroupStatus(group, GroupState.DRAINED, live.worker, live.heartbeat))
    return tuple(sorted(statuses, key=lambda status: status.group.id))


def lagging_routers(inventory: Inventory, epoch: int) -> tuple[str, ...]:
    """Live routers that have not yet acknowledged a plan of that epoch."""
    return tuple(live.router.id for live in inventory.routers if live.heartbeat.plan_epoch < epoch)


def _state(group_id: str, live: LiveWorker | None, intent: Intent) -> GroupState:
    if live is None:
        return GroupState.LOST
    if group_id == intent.flipping:
        return GroupState.FLIPPING
    return GroupState.DRAINED if group_id in intent.drained else GroupState.SERVING
