"""What to rent within a budget, or for a rate, and the plan on it."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from itertools import count, product
from typing import TYPE_CHECKING

from thunderserve.control.planner.assembly import plan_of
from thunderserve.control.planner.certificate import plan_worth
from thunderserve.control.planner.flow import Evaluator, Flow, Seat
from thunderserve.control.planner.rent.market import cluster_of, usd_per_byte
from thunderserve.control.planner.solve import solve
from thunderserve.core.errors import InvalidArgumentError
from thunderserve.core.plan import Phase, Plan

if TYPE_CHECKING:
    from thunderserve.control.planner.flow import Assessment
    from thunderserve.control.planner.rent.lease import Lease, Market

__all__ = ["Effort", "Rental", "cheapest_rental", "rental_within"]

_SECONDS_PER_HOUR = 3600.0
_TOLERANCE = 1e-6
_LEAST_RPS = 0.01
"""What serves less serves nothing."""

_PHASE_ORDER = (Phase.PREFILL, Phase.DECODE, Phase.COLOCATED)


@dataclass(frozen=True, slots=True)
class Effort:
    """How long and how closely to look.

    Attributes:
        time_limit_s: For every choice of offers.
        gap_ratio: Between a choice and what none exceeds, at which it is taken.
        plan_budget_s: For the search that plans anew on what was chosen.
        seed: Of that search.
        clock: Monotonic seconds.
    """

    clock: Callable[[], float]
    time_limit_s: float = 30.0
    gap_ratio: float = 0.005
    plan_budget_s: float = math.inf
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Rental:
    """What is rented, and what it is for.

    Attributes:
        rented: GPUs of each offer that is taken.
        plan: On the offers' hosts, as nodes named by their offers.
        objective_rps: What the plan has of the problem's objective, by the planner's physics.
        bound_rps: No rental within the same budget has more; not known of the cheapest.
        traffic_usd_per_hour: For KV cache that leaves a host or comes to one.
    """

    rented: dict[str, int]
    plan: Plan
    objective_rps: float
    bound_rps: float
    gpu_usd_per_hour: float
    traffic_usd_per_hour: float

    @property
    def usd_per_hour(self) -> float:
        """GPUs and traffic."""
        return self.gpu_usd_per_hour + self.traffic_usd_per_hour


def rental_within(market: Market, budget_usd_per_hour: float, effort: Effort) -> Rental:
    """What serves most within a budget.

    Raises:
        InvalidArgumentError: The budget is not positive, or nothing serves within it.
    """
    _check(budget_usd_per_hour, "budget")
    limits = {"time_limit_s": effort.time_limit_s, "gap_ratio": effort.gap_ratio}
    lease = market.most(budget_usd_per_hour, **limits)
    if lease is None:
        raise InvalidArgumentError(_too_small(market, budget_usd_per_hour, limits), param="budget")
    return _planned(market, lease, effort, lease.bound, budget_usd_per_hour)


def cheapest_rental(market: Market, rate_rps: float, effort: Effort) -> Rental:
    """What serves a rate on target for the least; the problem's objective is capacity.

    Raises:
        InvalidArgumentError: The rate is not positive, or all offers together do not serve it.
    """
    _check(rate_rps, "rate-at-least")
    limits = {"time_limit_s": effort.time_limit_s, "gap_ratio": effort.gap_ratio}
    lease = market.cheapest(rate_rps, **limits)
    if lease is None:
        most = market.most(math.inf, **limits)
        reached = "serve nothing" if most is None else f"reach {most.served_rps:.3g} requests/s"
        raise InvalidArgumentError(
            f"a rate of {rate_rps:g} requests/s is beyond all {len(market.offers)} offers, which "
            f"together {reached}",
            param="rate-at-least",
        )
    return _planned(market, lease, effort, math.inf, lease.usd_per_hour)


def _check(value: float, name: str) -> None:
    if not (math.isfinite(value) and value > 0):
        raise InvalidArgumentError(f"--{name} is {value:g}; it must be > 0", param=name)


def _too_small(market: Market, budget: float, limits: Mapping[str, float]) -> str:
    model = market.problem.model.name
    least = market.cheapest(_LEAST_RPS, **limits)
    if least is None:
        return f"none of the {len(market.offers)} offers holds {model} and serves it in time"
    offers = " and ".join(
        f"{number} x {market.offers[name].gpu.name} (offer {name})"
        for name, number in least.rented.items()
    )
    return (
        f"--budget {budget:g} $/h is too small to serve {model}: the cheapest that does costs "
        f"{least.usd_per_hour:.2f} $/h, {offers}"
    )


def _planned(
    market: Market, lease: Lease, effort: Effort, bound_rps: float, budget: float
) -> Rental:
    """The lease as a plan, checked by the planner: its own plan there, where that is better."""
    cluster = cluster_of(list(market.offers.values()), lease.rented)
    problem = replace(market.problem, cluster=cluster)
    evaluator = Evaluator(problem)
    leased = plan_of(evaluator, _assessment(market, evaluator, lease), strategy="rent", seed=0)
    searched = solve(
        problem, seed=effort.seed, time_budget_s=effort.plan_budget_s, clock=effort.clock
    )
    # Of the lease's plan no more is served than the budget pays the traffic of.
    best = _rental(market, lease, evaluator, leased, lease.served_rps)
    other = _rental(market, lease, evaluator, searched, math.inf)
    if other.usd_per_hour <= budget * (1 + _TOLERANCE) and _more(other, best):
        best = other
    return replace(best, bound_rps=max(bound_rps, best.objective_rps))


def _more(one: Rental, other: Rental) -> bool:
    return one.objective_rps > other.objective_rps * (1 + _TOLERANCE)


def _rental(
    market: Market, lease: Lease, evaluator: Evaluator, plan: Plan, most_rps: float
) -> Rental:
    """What a plan on the leased GPUs costs and serves."""
    worth = plan_worth(evaluator, plan, most_rps=most_rps)
    prices = usd_per_byte(market.offers.values())
    traffic = sum(prices.get(port, 0.0) * sent for port, sent in worth.sent_bytes_per_s.items())
    rent = sum(
        number * market.offers[name].gpu.usd_per_hour for name, number in lease.rented.items()
    )
    assert plan.predicted is not None  # noqa: S101 - the planner's own plans are predicted
    plan = replace(plan, predicted=replace(plan.predicted, usd_per_hour=rent))
    hourly = traffic * _SECONDS_PER_HOUR
    return Rental(lease.rented, plan, worth.objective_rps, math.inf, rent, hourly)


def _assessment(market: Market, evaluator: Evaluator, lease: Lease) -> Assessment:
    """The lease's groups, and its flows spread evenly over the copies of each column."""
    taken = [(index, market.stock.columns[index]) for index, n in enumerate(lease.copies) if n]
    taken.sort(key=lambda each: _PHASE_ORDER.index(each[1].phase))
    names = (f"g{number}" for number in count())
    members: dict[int, list[Seat]] = defaultdict(list)
    for index, column in taken:
        for _ in range(lease.copies[index]):
            members[index].append(Seat(next(names), column.phase, column.design))
    flows: dict[tuple[str, str], float] = {}
    for lane, rps in zip(market.stock.lanes, lease.flows, strict=True):
        ends = [
            (first.id, later.id)
            for first, later in product(members[lane.prefill], members[lane.decode])
            if lane.prefill != lane.decode or first is later
        ]
        for pair in ends:
            flows[pair] = flows.get(pair, 0.0) + max(0.0, rps) / len(ends)
    seats = tuple(seat for each in members.values() for seat in each)
    posed = evaluator.assess(seats)
    spread = tuple(flows.get((pair.prefill, pair.decode), 0.0) for pair in posed.problem.pairs)
    return replace(posed, flow=Flow(spread, attained_rps=lease.attained_rps))
