"""The certificate's master problem with a price on it: which offers to take, and what they serve.

::

    most    attained (or served, for capacity)
    where   a plan on the offers that are taken
            rent of these + bytes through ports * their price <= budget

or the other way round: the least rent and traffic such that a rate is served on target.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from thunderserve.control.planner.certificate import Master, Stock, stock_of, undominated
from thunderserve.control.planner.flow import Evaluator
from thunderserve.control.planner.rent.market import usd_per_byte

if TYPE_CHECKING:
    from collections.abc import Sequence

    from thunderserve.control.planner.certificate import Answer
    from thunderserve.control.planner.problem import Problem
    from thunderserve.control.planner.rent.offers import Offer
    from thunderserve.control.planner.search import Counts

__all__ = ["Lease", "Market"]

_SECONDS_PER_HOUR = 3600.0
_SMALLEST_RPS = 1e-4


@dataclass(frozen=True, slots=True)
class Lease:
    """GPUs of offers, and what flows on them.

    Attributes:
        rented: GPUs of each offer that is taken.
        copies: Of every column of the market's stock.
        flows: Of every lane, in requests per second.
        attained_rps: Requests per second that meet their bounds.
        gpu_usd_per_hour: Rent.
        traffic_usd_per_hour: For the bytes that the flows move between hosts.
        bound: No lease within the same budget has more of the objective; or costs less.
    """

    rented: dict[str, int]
    copies: tuple[int, ...]
    flows: tuple[float, ...]
    attained_rps: float
    gpu_usd_per_hour: float
    traffic_usd_per_hour: float
    bound: float

    @property
    def served_rps(self) -> float:
        """Requests per second."""
        return sum(self.flows)

    @property
    def usd_per_hour(self) -> float:
        """Rent and traffic."""
        return self.gpu_usd_per_hour + self.traffic_usd_per_hour


class Market:
    """All plans on all offers, and what each costs."""

    def __init__(self, problem: Problem, offers: Sequence[Offer]) -> None:
        """Describe the market; the problem's cluster is that of all offers."""
        self.problem = problem
        self.offers = {offer.id: offer for offer in offers}
        self.evaluator = Evaluator(problem)
        self.stock: Stock = undominated(stock_of(self.evaluator, pooled=False))
        prices = usd_per_byte(offers)
        self._lane_usd = [
            _SECONDS_PER_HOUR * sum(each * prices[port] for port, each in lane.bytes)
            for lane in self.stock.lanes
        ]

    def most(self, budget: float, *, time_limit_s: float, gap_ratio: float) -> Lease | None:
        """What serves most within a budget per hour; None when nothing does."""
        master, costs = self._master()
        master.program.add_row(costs, budget)
        answer = master.program.solve(time_limit_s=time_limit_s, gap_ratio=gap_ratio)
        return self._lease(master, answer, answer.bound)

    def cheapest(self, rate_rps: float, *, time_limit_s: float, gap_ratio: float) -> Lease | None:
        """What serves a rate for the least per hour; None when not even all offers do."""
        master, costs = self._master()
        for variable in range(len(master.copies) + len(master.flows)):
            master.program.set_gain(variable, 0.0)
        for variable, usd in costs:
            master.program.set_gain(variable, -usd)
        master.program.add_row([(flow, -1.0) for flow in master.flows], -rate_rps)
        answer = master.program.solve(time_limit_s=time_limit_s, gap_ratio=gap_ratio)
        return self._lease(master, answer, -answer.bound)

    def dollar_rps(self, budget: float) -> float:
        """What one dollar more per hour is worth, were GPUs and hosts divisible: the LP's dual."""
        master, costs = self._master()
        row = master.program.add_row(costs, budget)
        prices = master.program.solve(integers=False).prices
        return max(0.0, prices[row]) if prices else 0.0

    def _master(self) -> tuple[Master, list[tuple[int, float]]]:
        """The master problem, and what each of its variables costs per hour."""
        parts: dict[int, list[Counts]] = {}
        offers = [self.offers[site.nodes[0]] for site in self.stock.sites]
        for index, offer in enumerate(offers):
            parts[index] = [(number,) for number in range(offer.min_gpus, offer.gpus + 1)]
        master = Master(self.problem, self.stock, parts)
        costs = [
            (cut, number * offers[index].gpu.usd_per_hour)
            for index, cuts in master.cuts.items()
            for (number,), cut in cuts
        ]
        priced = zip(master.flows, self._lane_usd, strict=True)
        return master, costs + [(flow, usd) for flow, usd in priced if usd]

    def _lease(self, master: Master, answer: Answer, bound: float) -> Lease | None:
        if not answer.feasible:
            return None
        flows = tuple(answer.values[flow] for flow in master.flows)
        if sum(flows) < _SMALLEST_RPS:
            return None
        rented = {
            self.stock.sites[index].nodes[0]: part[0]
            for index, cuts in master.cuts.items()
            for part, cut in cuts
            if round(answer.values[cut])
        }
        return Lease(
            rented=rented,
            copies=tuple(round(answer.values[copy]) for copy in master.copies),
            flows=flows,
            attained_rps=sum(gain * answer.values[variable] for variable, gain in master.attained),
            gpu_usd_per_hour=sum(
                number * self.offers[name].gpu.usd_per_hour for name, number in rented.items()
            ),
            traffic_usd_per_hour=sum(
                usd * flow for usd, flow in zip(self._lane_usd, flows, strict=True)
            ),
            bound=bound,
        )
