"""What the flow of requests is asked, and the answer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from thunderserve.core.errors import InvalidArgumentError
from thunderserve.core.plan import Phase

__all__ = ["Flow", "FlowProblem", "Pair", "Station"]


@dataclass(frozen=True, slots=True)
class Station:
    """A group as the flow sees it.

    Attributes:
        losses: (slope, offset) of lines; at a load, as many requests per second miss their bounds
            as the highest of 0 and slope * load - offset.
    """

    id: str
    phase: Phase
    capacity_rps: float
    losses: tuple[tuple[float, float], ...] = ()

    def loss_rps(self, load_rps: float) -> float:
        """Requests per second that miss their bounds at that load."""
        return max([0.0, *(slope * load_rps - offset for slope, offset in self.losses)])


@dataclass(frozen=True, slots=True)
class Pair:
    """A possible route.

    Attributes:
        attainment_ratio: Share of requests that meet their bounds when both groups are idle.
        bytes: What a request sends through each port, by port.
    """

    prefill: str
    decode: str
    attainment_ratio: float = 1.0
    bytes: tuple[tuple[str, float], ...] = ()

    @property
    def stations(self) -> tuple[str, ...]:
        """The groups on the way; one when it is colocated."""
        return tuple(dict.fromkeys((self.prefill, self.decode)))


@dataclass(frozen=True, slots=True)
class FlowProblem:
    """Demand, groups, routes between them and ports that the routes share.

    Attributes:
        demand_rps: Requests per second that arrive, of which the flow serves what it can.
        target_ratio: When given, demand is ignored and the most requests per second are looked for
            of which that share meets its bounds.
    """

    demand_rps: float
    stations: tuple[Station, ...]
    pairs: tuple[Pair, ...]
    ports: Mapping[str, float] = field(default_factory=dict)
    target_ratio: float | None = None

    def __post_init__(self) -> None:
        if self.demand_rps <= 0:
            raise InvalidArgumentError(
                f"demand_rps is {self.demand_rps}; it must be > 0", param="demand_rps"
            )

    def most_rps(self) -> float:
        """A bound: no flow is larger, whatever the demand."""
        capacity = {station.id: station.capacity_rps for station in self.stations}
        routes = sum(min(capacity[station] for station in p.stations) for p in self.pairs)
        totals = dict.fromkeys(Phase, 0.0)
        for station in self.stations:
            totals[station.phase] += station.capacity_rps
        groups = min(totals[Phase.PREFILL], totals[Phase.DECODE]) + totals[Phase.COLOCATED]
        return min(routes, groups)


@dataclass(frozen=True, slots=True)
class Flow:
    """The solution.

    Attributes:
        rps: Of every pair, in the problem's order.
        attained_rps: Requests per second that meet their bounds.
        score: What was maximised, in requests per second.
        fullest_ratio: Load of the fullest group, of its capacity.
    """

    rps: tuple[float, ...]
    attained_rps: float = 0.0
    score: float = 0.0
    fullest_ratio: float = 0.0

    @property
    def served_rps(self) -> float:
        """Requests per second that are served."""
        return sum(self.rps)

    @property
    def capacity_rps(self) -> float:
        """Requests per second at which, scaled up as it is, the flow would fill a group."""
        return self.served_rps / self.fullest_ratio if self.fullest_ratio > 0 else 0.0
