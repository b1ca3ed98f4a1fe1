"""What a plan's routes carry when they are kept, though what they were made for has changed."""

from __future__ import annotations

import math
from collections import defaultdict
from typing import TYPE_CHECKING

from thunderserve.control.planner.flow.flow import Flow, FlowProblem, Pair

if TYPE_CHECKING:
    from collections.abc import Sequence

    from thunderserve.core.plan import Route

__all__ = ["follow_routes"]


def follow_routes(posed: FlowProblem, routes: Sequence[Route]) -> Flow:
    """The flow when every route gets its weight's share of the demand.

    Routes that the problem lacks are left out and their share goes to the others, as routers do
    when a worker is gone. A group or a port that is asked for more than it can do serves each of
    its routes in proportion; what is cut there is not offered to another route.
    """
    weights = {(route.prefill, route.decode): route.weight for route in routes}
    wanted = [weights.get((pair.prefill, pair.decode), 0.0) for pair in posed.pairs]
    if not (total := sum(wanted)):
        return Flow((0.0,) * len(posed.pairs))
    wanted = [posed.demand_rps * weight / total for weight in wanted]
    overload = _overload(posed, wanted)
    rps = tuple(
        flow / max([1.0, *(overload.get(place, 0.0) for place in _places(pair))])
        for pair, flow in zip(posed.pairs, wanted, strict=True)
    )
    return _flow(posed, rps)


def _places(pair: Pair) -> list[str]:
    return [*pair.stations, *(port for port, _ in pair.bytes)]


def _overload(posed: FlowProblem, rps: Sequence[float]) -> dict[str, float]:
    """Load of every group and port that is used, of its capacity."""
    load: dict[str, float] = defaultdict(float)
    for pair, flow in zip(posed.pairs, rps, strict=True):
        for station in pair.stations:
            load[station] += flow
        for port, sent in pair.bytes:
            load[port] += flow * sent
    capacity = dict(posed.ports) | {each.id: each.capacity_rps for each in posed.stations}
    return {
        place: each / capacity[place] if capacity[place] > 0 else math.inf
        for place, each in load.items()
        if each > 0
    }


def _flow(posed: FlowProblem, rps: tuple[float, ...]) -> Flow:
    loads: dict[str, float] = defaultdict(float)
    met = 0.0
    for pair, flow in zip(posed.pairs, rps, strict=True):
        met += pair.attainment_ratio * flow
        for station in pair.stations:
            loads[station] += flow
    met -= sum(station.loss_rps(loads[station.id]) for station in posed.stations)
    attained = max(0.0, met)
    full = [loads[s.id] / s.capacity_rps for s in posed.stations if loads[s.id] > 0]
    return Flow(rps, attained, attained, max(full, default=0.0))
