"""What a plan has of the objective: of any strategy's, by the physics that bounds all plans."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from thunderserve.control.planner.certificate.program import Program
from thunderserve.control.planner.design import design_of
from thunderserve.control.planner.evaluate import Seat
from thunderserve.control.planner.problem import Objective

if TYPE_CHECKING:
    from thunderserve.control.planner.evaluate import Evaluator
    from thunderserve.control.planner.flow import Pair
    from thunderserve.core.plan import Plan

__all__ = ["plan_worth"]


def plan_worth(evaluator: Evaluator, plan: Plan) -> float:
    """The objective that a plan reaches, its routes as they are, in requests per second.

    What arrives is split by the routes' weights; as much of it is served as serves the objective.
    """
    seats = {group.id: Seat(group.id, group.phase, design_of(group)) for group in plan.groups}
    routes = [
        (evaluator.pair(seats[route.prefill], seats[route.decode]), route.weight)
        for route in plan.routes
    ]
    if not routes:
        return 0.0
    return max(0.0, _program(evaluator, list(seats.values()), routes).solve().objective)


def _program(evaluator: Evaluator, seats: list[Seat], routes: list[tuple[Pair, float]]) -> Program:
    """One variable serves all routes: the requests per second that are served."""
    problem, program = evaluator.problem, Program()
    counted = problem.objective is Objective.CAPACITY
    ratio = sum(pair.attainment_ratio * weight for pair, weight in routes)
    served = program.add_variable(1.0 if counted else ratio)
    shares: dict[str, float] = defaultdict(float)
    sent: dict[str, float] = defaultdict(float)
    for pair, weight in routes:
        for name in pair.stations:
            shares[name] += weight
        for port, each in pair.bytes:
            sent[port] += weight * each
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
