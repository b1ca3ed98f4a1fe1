"""What a plan has of the objective: of any strategy's, by the physics that bounds all plans."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from thunderserve.control.planner.certificate.program import Program
from thunderserve.control.planner.design import design_of
from thunderserve.control.planner.flow import Seat
from thunderserve.control.planner.problem import Objective

if TYPE_CHECKING:
    from thunderserve.control.planner.flow import Evaluator, Pair
    from thunderserve.core.plan import Plan

__all__ = ["Worth", "plan_worth"]

_SERVED = 0
"""The variable that serves all routes: the requests per second that are served."""


@dataclass(frozen=True, slots=True)
class Worth:
    """What a plan does.

    Attributes:
        objective_rps: What it has of its problem's objective.
        sent_bytes_per_s: Through each port.
    """

    objective_rps: float = 0.0
    served_rps: float = 0.0
    sent_bytes_per_s: Mapping[str, float] = field(default_factory=dict)


def plan_worth(evaluator: Evaluator, plan: Plan, *, most_rps: float = math.inf) -> Worth:
    """What a plan does, its routes as they are.

    What arrives is split by the routes' weights; as much of it is served as serves the objective,
    and no more than `most_rps`.
    """
    seats = {group.id: Seat(group.id, group.phase, design_of(group)) for group in plan.groups}
    routes = [
        (evaluator.pair(seats[route.prefill], seats[route.decode]), route.weight)
        for route in plan.routes
    ]
    if not routes:
        return Worth()
    sent: dict[str, float] = defaultdict(float)
    for pair, weight in routes:
        for port, each in pair.bytes:
            sent[port] += weight * each
    program = _program(evaluator, list(seats.values()), routes, sent)
    program.add_row([(_SERVED, 1.0)], most_rps)
    answer = program.solve()
    served = max(0.0, answer.values[_SERVED])
    return Worth(
        max(0.0, answer.objective), served, {port: served * each for port, each in sent.items()}
    )


def _program(
    evaluator: Evaluator,
    seats: list[Seat],
    routes: list[tuple[Pair, float]],
    sent: Mapping[str, float],
) -> Program:
    """What is served, and what of it misses its bounds at each group."""
    problem, program = evaluator.problem, Program()
    counted = problem.objective is Objective.CAPACITY
    ratio = sum(pair.attainment_ratio * weight for pair, weight in routes)
    served = program.add_variable(1.0 if counted else ratio)
    shares: dict[str, float] = defaultdict(float)
    for pair, weight in routes:
        for name in pair.stations:
            shares[name] += weight
    for port, each in sent.items():
        program.add_row([(served, each / evaluator.ports[port])], 1.0)
    losses: list[int] = []
    for seat in seats:
        station, share = evaluator.station(seat), shares[seat.id]
        program.add_row([(served, share)], station.capacity_rps)
        losses.append(program.add_variable(0.0 if counted else -1.0))
        for slope, offset in station.losses:
            program.add_row([(served, slope * share), (losses[-1], -1.0)], offset)
    if counted:
        missing = (served, problem.target_ratio - ratio)
        program.add_row([missing, *((loss, 1.0) for loss in losses)], 0.0)
    else:
        program.add_row([(served, 1.0)], problem.workload.rate_rps)
    return program
