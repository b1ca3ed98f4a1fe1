"""Light re-scheduling: groups and their parallelism stay, phases and routes move.

No weights are loaded: a flip changes what a group does, not what it holds.

Source: ThunderServe (MLSys 2025), lightweight rescheduling.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from itertools import product
from math import prod
from typing import TYPE_CHECKING

from thunderserve.control.planner.design import design_of
from thunderserve.control.planner.evaluate import Assessment, Evaluator, Seat
from thunderserve.core.plan import Group, Phase, Route

if TYPE_CHECKING:
    from collections.abc import Hashable, Mapping, Sequence

    from thunderserve.control.planner.problem import Problem

__all__ = ["choose_phases", "reschedule", "route_groups", "routes_of"]

EXHAUSTIVE_LIMIT = 400
"""Assignments of phases up to which all are tried; beyond it, single flips climb."""

FLIP_COST = 1e-3
"""What a plan must gain to be worth one flip: this share of the requests that meet their bounds."""

HEADROOM = 1e-2
"""What all the capacity counts beside all the requests: a tenth more of it is worth one flip."""

_SMALLEST_WEIGHT = 1e-9


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
    limit = problem.engine.flip_max_pp
    choices = {
        group.id: (Phase.PREFILL, Phase.DECODE)
        if group.phase is not Phase.COLOCATED and group.pp <= limit
        else (group.phase,)
        for group in groups
    }
    best = choose_phases(Evaluator(problem), [_seat(group) for group in groups], choices)
    phases = {seat.id: seat.phase for seat in best.seats}
    flipped = tuple(replace(group, phase=phases[group.id]) for group in groups)
    return flipped, routes_of(best), best


def _seat(group: Group) -> Seat:
    return Seat(group.id, group.phase, design_of(group))


def routes_of(assessment: Assessment) -> tuple[Route, ...]:
    """The flow as routes whose weights sum to 1."""
    served = assessment.flow.served_rps
    if served <= 0:
        return ()
    flows = zip(assessment.problem.pairs, assessment.flow.rps, strict=True)
    used = [(pair, rps) for pair, rps in flows if rps > _SMALLEST_WEIGHT * served]
    total = sum(rps for _, rps in used)
    return tuple(Route(pair.prefill, pair.decode, rps / total) for pair, rps in used)


def choose_phases(
    evaluator: Evaluator, seats: Sequence[Seat], choices: Mapping[str, Sequence[Phase]]
) -> Assessment:
    """The best phases among each group's choices; of equal ones, those nearest the present."""
    classes = _classes(seats, choices)
    if prod(len(_splits(members, choices)) for members in classes) > EXHAUSTIVE_LIMIT:
        return _climb(evaluator, seats, choices)
    assignments = product(*(_splits(members, choices) for members in classes))
    candidates = ([seat for part in parts for seat in part] for parts in assignments)
    return _worthiest([evaluator.assess(_in_order(each, seats)) for each in candidates], seats)


def _worthiest(found: Sequence[Assessment], present: Sequence[Seat]) -> Assessment:
    """The one that serves most, with most room to spare, for the fewest flips."""
    phases = {seat.id: seat.phase for seat in present}
    most = max(each.score for each in found) or 1.0
    widest = max(each.flow.capacity_rps for each in found) or 1.0

    def worth(each: Assessment) -> float:
        flips = sum(seat.phase is not phases[seat.id] for seat in each.seats)
        room = HEADROOM * each.flow.capacity_rps / widest
        return each.score / most + room - FLIP_COST * flips

    return max(found, key=worth)


def _classes(seats: Sequence[Seat], choices: Mapping[str, Sequence[Phase]]) -> list[list[Seat]]:
    """Groups that may take the same phases and hold the model alike on the same nodes."""
    classes: dict[Hashable, list[Seat]] = defaultdict(list)
    for seat in seats:
        classes[seat.design, tuple(choices[seat.id])].append(seat)
    return list(classes.values())


def _splits(members: Sequence[Seat], choices: Mapping[str, Sequence[Phase]]) -> list[list[Seat]]:
    """One assignment for each number of members in each phase: equal groups are one state."""
    options = tuple(choices[members[0].id])
    if options != (Phase.PREFILL, Phase.DECODE):
        return [[replace(seat, phase=options[0]) for seat in members]]
    # Those that prefill already prefill first, so that the fewest flip.
    ordered = sorted(members, key=lambda seat: seat.phase is not Phase.PREFILL)
    return [
        [
            replace(seat, phase=Phase.PREFILL if place < prefills else Phase.DECODE)
            for place, seat in enumerate(ordered)
        ]
        for prefills in range(len(ordered) + 1)
    ]


def _climb(
    evaluator: Evaluator, seats: Sequence[Seat], choices: Mapping[str, Sequence[Phase]]
) -> Assessment:
    """Flip the group that helps most until none does."""
    best = evaluator.assess(seats)
    while True:
        neighbours = [
            evaluator.assess([replace(s, phase=phase) if s is seat else s for s in best.seats])
            for seat in best.seats
            for phase in choices[seat.id]
            if phase is not seat.phase
        ]
        found = _worthiest([best, *neighbours], seats)
        if found is best:
            return best
        best = found


def _in_order(candidate: Sequence[Seat], seats: Sequence[Seat]) -> list[Seat]:
    by_id = {seat.id: seat for seat in candidate}
    return [by_id[seat.id] for seat in seats]
