"""Which changes the fleet allows: flips, and plans that an operator wants to apply."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

from thunderserve.control.inventory import LiveWorker, links_of
from thunderserve.control.reconciler import can_serve
from thunderserve.core.errors import InvalidArgumentError, NotFoundError, PreconditionError
from thunderserve.core.fleet import Worker
from thunderserve.core.plan import Group, Phase

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from thunderserve.control.inventory import Inventory
    from thunderserve.control.standing import Standing
    from thunderserve.core.links import MeasuredLink
    from thunderserve.core.plan import Plan
    from thunderserve.core.workload import Workload

__all__ = [
    "AllowedFlip",
    "FlipRules",
    "allowed_flip",
    "check_floor",
    "flips_between",
    "needed_flips",
]

_ROUNDING = 1e-9


class ServedRps(Protocol):
    """Requests per second in time that groups can serve; see `Planner.served_rps`."""

    def __call__(
        self,
        workers: Sequence[Worker],
        phases: Mapping[str, Phase],
        workload: Workload | None,
        links: Sequence[MeasuredLink],
    ) -> float:
        """Over the best routes between them."""


@dataclass(frozen=True, slots=True)
class FlipRules:
    """What flips must leave, and what takes their place where an engine cannot flip.

    Attributes:
        floor_ratio: Of what the fleet serves now, for as long as a group is away.
        served_rps: What groups can serve.
        restart_s: Loading a worker's weights anew.
    """

    floor_ratio: float
    served_rps: ServedRps
    restart_s: Callable[[Worker], float]


@dataclass(frozen=True, slots=True)
class AllowedFlip:
    """A flip that nothing stands against."""

    group: Group
    to_phase: Phase
    live: LiveWorker


def allowed_flip(
    inventory: Inventory,
    standing: Standing | None,
    group_id: str,
    to_phase: Phase,
    rules: FlipRules | None = None,
) -> AllowedFlip:
    """Check a flip, but for the floor; see `check_floor`.

    Raises:
        NotFoundError: The plan has no such group.
        PreconditionError: The group is lost, is in that phase already or cannot flip, or nobody
            could serve afterwards.
    """
    group = standing.plan.group(group_id) if standing else None
    if standing is None or group is None:
        raise NotFoundError(f"the plan has no group {group_id}")
    live = inventory.worker(group_id)
    if live is None:
        raise PreconditionError(f"group {group_id} is lost: its worker is not attached")
    if group.phase is to_phase:
        raise PreconditionError(f"group {group_id} is in phase {to_phase} already")
    can = live.worker.capabilities
    if not can.flippable or to_phase not in can.phases:
        raise PreconditionError(_instead(live.worker, to_phase, rules))
    _check_others_serve(inventory, standing, group, to_phase)
    return AllowedFlip(group, to_phase, live)


def check_floor(
    inventory: Inventory,
    standing: Standing,
    group_id: str,
    rules: FlipRules,
    *,
    base_rps: float | None = None,
) -> float:
    """What is served while a group is away.

    Args:
        inventory: Who is alive.
        standing: What the others are routed by.
        group_id: Who is to be away.
        rules: Say the floor.
        base_rps: What the floor is a share of; None is what is served now.

    Raises:
        PreconditionError: It is less than the floor.
    """
    now_rps = base_rps if base_rps is not None else _served(inventory, standing, rules)
    left_rps = _served(inventory, standing, rules, without=group_id)
    if left_rps < rules.floor_ratio * now_rps * (1 - _ROUNDING):
        raise PreconditionError(
            f"without group {group_id} the fleet would serve {left_rps:.3g} of {now_rps:.3g} "
            f"requests/s while it flips, and capacity_floor_ratio is {rules.floor_ratio:.0%}; "
            "flip at a quieter time, add a group, or lower the floor"
        )
    return left_rps


def flips_between(
    inventory: Inventory, standing: Standing, plan: Plan, rules: FlipRules | None = None
) -> tuple[tuple[str, Phase], ...]:
    """The flips that lead from what stands to a plan, in an order in which each is allowed.

    Next is always the group without which the others serve most, where the rules say how much that
    is; the floor is a share of what is served before the first.

    Raises:
        PreconditionError: There is no such order; the message says what stands against it.
    """
    ordered: list[tuple[str, Phase]] = []
    remaining = needed_flips(inventory, plan)
    base_rps = _served(inventory, standing, rules) if rules and remaining else 0.0
    while remaining:
        group_id = _next_flip(inventory, standing, remaining, rules, base_rps)
        phase = remaining.pop(group_id)
        ordered.append((group_id, phase))
        view = standing.view._replace(plan=standing.plan.with_phase(group_id, phase))
        standing = replace(standing, view=view)
    return tuple(ordered)


def _next_flip(
    inventory: Inventory,
    standing: Standing,
    remaining: dict[str, Phase],
    rules: FlipRules | None,
    base_rps: float,
) -> str:
    """Of the flips that are allowed now, the one that leaves most served; raises for none."""
    refusal = PreconditionError("no flip is possible")
    left_rps: dict[str, float] = {}
    for group_id, phase in reversed(remaining.items()):
        try:
            allowed_flip(inventory, standing, group_id, phase, rules)
            left_rps[group_id] = (
                check_floor(inventory, standing, group_id, rules, base_rps=base_rps)
                if rules
                else 0.0
            )
        except PreconditionError as error:
            refusal = error  # that of the plan's first group stays
    if not left_rps:
        raise refusal
    return max(reversed(left_rps), key=lambda name: left_rps[name])


def needed_flips(inventory: Inventory, plan: Plan) -> dict[str, Phase]:
    """Groups of a plan whose live workers are in another phase, and the phase they are to have.

    Raises:
        InvalidArgumentError: A group is not a live one, or differs in more than its phase.
    """
    flips: dict[str, Phase] = {}
    for group in plan.groups:
        live = inventory.worker(group.id)
        if live is None:
            raise InvalidArgumentError(f"group {group.id} is not attached", param="groups")
        can = live.worker.capabilities
        if (group.gpus, group.tp, group.pp) != (live.worker.gpus, can.tp, can.pp):
            gpus = ", ".join(gpu.id for gpu in live.worker.gpus)
            raise InvalidArgumentError(
                f"group {group.id} has tp {can.tp}, pp {can.pp} and GPUs {gpus}; a plan that is "
                "applied can change phases and routes alone",
                param="groups",
            )
        if live.heartbeat.phase is not group.phase:
            flips[group.id] = group.phase
    return flips


def _served(
    inventory: Inventory, standing: Standing, rules: FlipRules, *, without: str = ""
) -> float:
    """What the groups that are routed to can serve."""
    away = {*standing.intent.drained, standing.intent.flipping, without}
    phases = {g.id: g.phase for g in standing.plan.groups if g.id not in away}
    workers = [live.worker for live in inventory.workers if live.worker.group_id in phases]
    return rules.served_rps(workers, phases, standing.intent.workload, links_of(inventory))


def _instead(worker: Worker, to_phase: Phase, rules: FlipRules | None) -> str:
    """What an operator can do where the engine refuses to flip."""
    can = worker.capabilities
    why = f" with {can.pp} pipeline stages" if can.pp > 1 else ""
    message = f"the engine of group {worker.group_id} cannot switch to {to_phase}{why}"
    if rules is None or to_phase not in can.phases:
        return message
    return (
        f"{message} without loading weights; drain it and restart its worker in that phase: about "
        f"{rules.restart_s(worker):.0f} s to load weights, and the engine's start"
    )


def _check_others_serve(
    inventory: Inventory, standing: Standing, group: Group, to_phase: Phase
) -> None:
    drained = standing.intent.drained
    if group.id in drained:
        return  # it serves nobody now, so nobody misses it
    after = [
        to_phase if each.id == group.id else each.phase
        for each in standing.plan.groups
        if inventory.worker(each.id) and each.id not in drained
    ]
    if not can_serve(after):
        raise PreconditionError(
            f"group {group.id} is the last {group.phase} group; without it nobody could serve"
        )
