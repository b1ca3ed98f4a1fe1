"""What each budget buys: the Pareto front, and the price of a dollar."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from thunderserve.control.planner.rent.lease import Lease, Market
    from thunderserve.control.planner.rent.rental import Effort

__all__ = ["Point", "front_over"]


@dataclass(frozen=True, slots=True)
class Point:
    """A budget and what it buys at most.

    Attributes:
        usd_per_hour: What is spent of it.
        goodput_rps: Requests per second that meet their bounds.
        bound_rps: No rental within the budget serves more (of the problem's objective).
        dollar_rps: The shadow price: what one more dollar per hour is worth, by the dual of the
            budget's row, were hosts divisible.
    """

    budget_usd_per_hour: float
    usd_per_hour: float
    gpu_usd_per_hour: float
    traffic_usd_per_hour: float
    served_rps: float
    goodput_rps: float
    bound_rps: float
    dollar_rps: float
    gpus: int


def front_over(market: Market, budgets: Sequence[float], effort: Effort) -> tuple[Point, ...]:
    """A point for every budget that serves anything; more is never worse.

    What a smaller budget buys, a larger one does too; so where a choice that is content with a gap
    finds less than a smaller budget did, it is that of the smaller.
    """
    points: list[Point] = []
    for budget in sorted(set(budgets)):
        lease = market.most(budget, time_limit_s=effort.time_limit_s, gap_ratio=effort.gap_ratio)
        point = _point(market, budget, lease) if lease is not None else None
        if points and (point is None or point.served_rps < points[-1].served_rps):
            point = replace(points[-1], budget_usd_per_hour=budget)
        if point is not None:
            points.append(point)
    return tuple(points)


def _point(market: Market, budget: float, lease: Lease) -> Point:
    return Point(
        budget_usd_per_hour=budget,
        usd_per_hour=lease.usd_per_hour,
        gpu_usd_per_hour=lease.gpu_usd_per_hour,
        traffic_usd_per_hour=lease.traffic_usd_per_hour,
        served_rps=lease.served_rps,
        goodput_rps=lease.attained_rps,
        bound_rps=lease.bound,
        dollar_rps=market.dollar_rps(budget),
        gpus=sum(lease.rented.values()),
    )
