"""What could be done about a change in a live fleet: nothing, new routes, flips and new routes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from thunderserve.control.planner.flow import Assessment, Evaluator, Seat, follow_routes
from thunderserve.control.planner.live import (
    NO_BOUNDS,
    NOMINAL_NETWORK,
    live_choices,
    live_problem,
    live_seats,
)
from thunderserve.control.planner.rescheduling import choose_phases
from thunderserve.core.catalogue import PROFILES, Catalogue
from thunderserve.core.plan import Phase

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from thunderserve.core.fleet import Worker
    from thunderserve.core.hardware import Link
    from thunderserve.core.links import MeasuredLink
    from thunderserve.core.model import ModelSpec
    from thunderserve.core.plan import Route
    from thunderserve.core.slo import Slo
    from thunderserve.core.workload import Workload

__all__ = ["Weighed", "weigh_workers"]


@dataclass(frozen=True, slots=True)
class Weighed:
    """Requests per second in time, by what is done.

    Attributes:
        kept_rps: The routes as they are.
        routed_rps: The best routes between the phases as they are.
        flipped_rps: The best routes between the best phases.
        flips: Groups that have another phase then, and which, in the order that keeps most served
            if one flips at a time.
        during_rps: The least on the way there, with the flipping group out of service.
    """

    kept_rps: float
    routed_rps: float
    flipped_rps: float
    flips: tuple[tuple[str, Phase], ...]
    during_rps: float


def weigh_workers(
    workers: Sequence[Worker],
    phases: Mapping[str, Phase],
    routes: Sequence[Route],
    *,
    model: ModelSpec,
    workload: Workload,
    slo: Slo = NO_BOUNDS,
    catalogue: Catalogue = PROFILES["tensor_dense"],
    network: Link = NOMINAL_NETWORK,
    links: Sequence[MeasuredLink] = (),
) -> Weighed:
    """Weigh them for what arrives now.

    Args:
        workers: The live workers that may be routed to.
        phases: Present phase by group id; workers that it lacks are left out.
        routes: Those that are published.
        model: What they all hold.
        workload: What arrives now.
        slo: Bounds to attain; without them the flow balances load.
        catalogue: Where GPU types are looked up; one that it lacks is judged as a plain CPU.
        network: Every node's port, where its links were not measured.
        links: What was measured between the workers' sidecars.
    """
    seats = live_seats(workers, phases, model)
    if not seats:
        return Weighed(0.0, 0.0, 0.0, (), 0.0)
    problem = live_problem(workers, model, workload, slo, (catalogue, network), links=links)
    evaluator = Evaluator(problem)
    present = evaluator.assess(seats)
    choices = {
        worker.group_id: live_choices(worker, phases[worker.group_id], problem.engine)
        for worker in workers
        if worker.group_id in phases
    }
    best = choose_phases(evaluator, seats, choices)
    flips, during_rps = _ordered(evaluator, present, best)
    return Weighed(
        kept_rps=follow_routes(present.problem, routes).attained_rps,
        routed_rps=present.flow.attained_rps,
        flipped_rps=best.flow.attained_rps,
        flips=flips,
        during_rps=during_rps,
    )


def _ordered(
    evaluator: Evaluator, present: Assessment, best: Assessment
) -> tuple[tuple[tuple[str, Phase], ...], float]:
    """The flips from one assignment to another, and the least served on the way.

    Next always flips the group without which the others serve most.
    """
    seats = {seat.id: seat for seat in present.seats}
    left = {s.id: s for s in best.seats if s.phase is not seats[s.id].phase}
    order: list[tuple[str, Phase]] = []
    least_rps = present.flow.attained_rps
    while left:
        served = {group: _without(evaluator, seats, group) for group in left}
        group = max(served, key=lambda name: served[name])
        least_rps = min(least_rps, served[group])
        seats[group] = left.pop(group)
        order.append((group, seats[group].phase))
    return tuple(order), least_rps


def _without(evaluator: Evaluator, seats: Mapping[str, Seat], group: str) -> float:
    others = [seat for name, seat in seats.items() if name != group]
    return evaluator.assess(others).flow.attained_rps if others else 0.0
