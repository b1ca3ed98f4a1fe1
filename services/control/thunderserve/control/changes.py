"""Which changes the fleet allows: flips, and plans that an operator wants to apply."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from thunderserve.control.inventory import LiveWorker
from thunderserve.control.reconciler import can_serve
from thunderserve.core.errors import InvalidArgumentError, NotFoundError, PreconditionError
from thunderserve.core.plan import Group, Phase

if TYPE_CHECKING:
    from thunderserve.control.inventory import Inventory
    from thunderserve.control.standing import Standing
    from thunderserve.core.plan import Plan

__all__ = ["AllowedFlip", "allowed_flip", "flips_between", "needed_flips"]


@dataclass(frozen=True, slots=True)
class AllowedFlip:
    """A flip that nothing stands against."""

    group: Group
    to_phase: Phase
    live: LiveWorker


def allowed_flip(
    inventory: Inventory, standing: Standing | None, group_id: str, to_phase: Phase
) -> AllowedFlip:
    """Check a flip.

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
        raise PreconditionError(f"the engine of group {group_id} cannot switch to {to_phase}")
    _check_others_serve(inventory, standing, group, to_phase)
    return AllowedFlip(group, to_phase, live)


def flips_between(
    inventory: Inventory, standing: Standing, plan: Plan
) -> tuple[tuple[str, Phase], ...]:
    """The flips that lead from what stands to a plan, in an order in which each is allowed.

    Raises:
        PreconditionError: There is no such order; the message says what stands against it.
    """
    ordered: list[tuple[str, Phase]] = []
    remaining = needed_flips(inventory, plan)
    while remaining:
        refusal: PreconditionError | None = None
        for group_id, phase in remaining.items():
            try:
                allowed_flip(inventory, standing, group_id, phase)
            except PreconditionError as error:
                refusal = refusal or error
            else:
                break
        else:
            raise refusal or PreconditionError("no flip is possible")
        ordered.append((group_id, remaining.pop(group_id)))
        view = standing.view._replace(plan=standing.plan.with_phase(group_id, phase))
        standing = replace(standing, view=view)
    return tuple(ordered)


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
