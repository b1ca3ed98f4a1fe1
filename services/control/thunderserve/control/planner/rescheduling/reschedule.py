"""Light re-scheduling: groups and their parallelism stay, phases and routes move.

No weights are loaded: a flip changes what a group does, not what it holds.

Source: ThunderServe (MLSys 2025), lightweight rescheduling.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from thunderserve.control.planner.assembly import routes_of
from thunderserve.control.planner.change import (
    as_started,
    check_made_for,
    surviving_groups,
    without_nodes,
)
from thunderserve.control.planner.design import design_of
from thunderserve.control.planner.flow import Assessment, Evaluator, Seat, follow_routes, predict
from thunderserve.control.planner.rescheduling.phases import SPLIT, choose_phases
from thunderserve.core.errors import UnavailableError
from thunderserve.core.plan import Group, Phase, Plan, Route

if TYPE_CHECKING:
    from collections.abc import Sequence

    from thunderserve.control.planner.problem import EngineLimits, Problem

__all__ = [
    "Flipped",
    "Rescheduled",
    "reschedule",
    "reschedule_plan",
    "route_groups",
]


@dataclass(frozen=True, slots=True)
class Flipped:
    """A group's phase that a re-schedule changes."""

    group: str
    before: Phase
    after: Phase


@dataclass(frozen=True, slots=True)
class Rescheduled:
    """A plan for what has changed, and what each part of it gains.

    Attributes:
        plan: The remaining groups in new phases, with new routes.
        gone: Groups on lost nodes.
        fixed: Groups of more stages than the engine can flip.
        kept_rps: Requests per second in time with the old routes, of those that have both ends.
        routed_rps: The same with new routes, and no flip.
        goodput_rps: The same with flips and new routes.
    """

    plan: Plan
    gone: tuple[str, ...]
    flips: tuple[Flipped, ...]
    fixed: tuple[str, ...]
    kept_rps: float
    routed_rps: float
    goodput_rps: float


def reschedule_plan(problem: Problem, plan: Plan, *, lost: Sequence[str] = ()) -> Rescheduled:
    """A plan's phases and routes, chosen anew for what has changed; its groups stay.

    Args:
        problem: The workload, bounds and links as they are now; the cluster still with its lost
            nodes.
        plan: What serves now.
        lost: Nodes that are gone.

    Raises:
        InvalidArgumentError: The plan is for another model or cluster.
        NotFoundError: A lost node is not in the cluster.
        UnavailableError: No group that is left, in any phase that it can take, serves anyone.
    """
    check_made_for(plan, problem.cluster, problem.model)
    problem = as_started(problem, plan)
    problem = replace(problem, cluster=without_nodes(problem.cluster, lost))
    groups = surviving_groups(plan, lost)
    gone = tuple(group.id for group in plan.groups if group not in groups)
    evaluator = Evaluator(problem)
    present = evaluator.assess([_seat(group) for group in groups])
    best = choose_phases(evaluator, present.seats, _choices(groups, problem.engine))
    flips = tuple(
        Flipped(seat.id, group.phase, seat.phase)
        for group, seat in zip(groups, best.seats, strict=True)
        if seat.phase is not group.phase
    )
    fixed = tuple(group.id for group in groups if group.pp > problem.engine.flip_max_pp)
    anew = replace(
        plan,
        groups=_in_phases(groups, best),
        routes=routes_of(best),
        predicted=predict(evaluator, best),
        search_evaluations=evaluator.flows_solved,
        certificate=None,
        created_unix_s=0.0,
        reason=_reason(lost, gone, flips),
    )
    if not anew.routes:
        raise UnavailableError(_nothing_left(lost, groups, fixed))
    return Rescheduled(
        plan=anew,
        gone=gone,
        flips=flips,
        fixed=fixed,
        kept_rps=follow_routes(present.problem, plan.routes).attained_rps,
        routed_rps=present.flow.attained_rps,
        goodput_rps=best.flow.attained_rps,
    )


def _reason(lost: Sequence[str], gone: Sequence[str], flips: Sequence[Flipped]) -> str:
    happened = []
    if lost:
        held = f"{', '.join(gone)} gone" if gone else "no group was there"
        happened.append(f"{', '.join(lost)} lost: {held}")
    happened += [f"{flip.group} flips {flip.before} -> {flip.after}" for flip in flips]
    if not flips:
        happened.append("routes alone are new")
    return "; ".join(happened)


def _nothing_left(lost: Sequence[str], groups: Sequence[Group], fixed: Sequence[str]) -> str:
    after = f" after losing {', '.join(lost)}" if lost else ""
    left = ", ".join(f"{group.id} {group.phase}" for group in groups) or "no group"
    stuck = f"; {', '.join(fixed)} cannot flip, having too many stages" if fixed else ""
    return f"nothing left to serve with{after}: {left}{stuck}; plan anew with `thunderserve plan`"


def route_groups(problem: Problem, groups: Sequence[Group]) -> tuple[Route, ...]:
    """Routes between groups as they are; none when no pair can serve."""
    evaluator = Evaluator(problem)
    return routes_of(evaluator.assess([_seat(group) for group in groups]))


def reschedule(
    problem: Problem, groups: Sequence[Group]
) -> tuple[tuple[Group, ...], tuple[Route, ...], Assessment]:
    """The phases and routes that serve the workload best; groups, their GPUs and layers stay.

    A group of more stages than can flip keeps its phase, and so does a colocated one.
    """
    seats = [_seat(group) for group in groups]
    best = choose_phases(Evaluator(problem), seats, _choices(groups, problem.engine))
    return _in_phases(groups, best), routes_of(best), best


def _choices(groups: Sequence[Group], engine: EngineLimits) -> dict[str, tuple[Phase, ...]]:
    return {
        group.id: SPLIT
        if group.phase is not Phase.COLOCATED and group.pp <= engine.flip_max_pp
        else (group.phase,)
        for group in groups
    }


def _in_phases(groups: Sequence[Group], assessment: Assessment) -> tuple[Group, ...]:
    phases = {seat.id: seat.phase for seat in assessment.seats}
    return tuple(replace(group, phase=phases[group.id]) for group in groups)


def _seat(group: Group) -> Seat:
    return Seat(group.id, group.phase, design_of(group))
