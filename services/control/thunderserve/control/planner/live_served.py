"""What live groups could serve at best: how much of a fleet is left while one is away."""

from __future__ import annotations

from typing import TYPE_CHECKING

from thunderserve.control.planner.flow import Evaluator
from thunderserve.control.planner.live import NO_BOUNDS, NOMINAL_NETWORK, live_problem, live_seats
from thunderserve.core.catalogue import PROFILES, Catalogue

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from thunderserve.core.fleet import Worker
    from thunderserve.core.hardware import Link
    from thunderserve.core.links import MeasuredLink
    from thunderserve.core.model import ModelSpec
    from thunderserve.core.plan import Phase
    from thunderserve.core.slo import Slo
    from thunderserve.core.workload import Workload

__all__ = ["served_rps"]


def served_rps(
    workers: Sequence[Worker],
    phases: Mapping[str, Phase],
    *,
    model: ModelSpec,
    workload: Workload,
    slo: Slo = NO_BOUNDS,
    catalogue: Catalogue = PROFILES["tensor_dense"],
    network: Link = NOMINAL_NETWORK,
    links: Sequence[MeasuredLink] = (),
) -> float:
    """Requests per second in time over the best routes; see `route_workers` for the arguments."""
    taking_part = [worker for worker in workers if worker.group_id in phases]
    seats = live_seats(taking_part, phases, model)
    if not seats:
        return 0.0
    problem = live_problem(taking_part, model, workload, slo, (catalogue, network), links=links)
    return Evaluator(problem).assess(seats).flow.attained_rps
