"""Mélange: the cheapest mix of GPU types that serves the workload.

Requests are put into buckets by size; each GPU type serves so many requests per second of each
bucket in time; an integer program rents the fewest dollars that serve all buckets.

Source: Griggs et al., "Mélange: Cost Efficient Large Language Model Serving by Exploiting GPU
Heterogeneity" (2024, arXiv 2404.14527); github.com/tyler-griggs/melange-release, melange/solver.py.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import pulp

from thunderserve.control.planner.flow import Evaluator
from thunderserve.control.planner.problem import Objective
from thunderserve.control.planner.simulator import ServingPolicy
from thunderserve.control.planner.strategies.judge import best_simulated
from thunderserve.control.planner.strategies.pools import Pools
from thunderserve.control.planner.strategies.sharing import shared_plans
from thunderserve.core.plan import Phase

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from thunderserve.control.planner.design import Design
    from thunderserve.control.planner.problem import Problem
    from thunderserve.core.plan import Plan
    from thunderserve.core.workload import Workload

__all__ = ["DEPARTURES", "POLICIES", "Instance", "cheapest_mix", "plan_melange"]

DEPARTURES = (
    "no more GPUs are rented than the cluster has",
    "for the capacity objective the rate is the highest that those serve",
    "an instance is the best (tp, pp) of its GPU type within a node; the source's is one GPU",
    "throughput of a bucket comes from our cost model instead of a profile",
    "a bucket is divided freely between types; the source cuts it into slices",
    "requests are sent by fixed shares, whatever their size; the source's balancer looks at it",
)

POLICIES = (ServingPolicy(),)

_BUCKETS = 3
"""Of prompts, and of answers."""

_MARGIN = 1 - 1e-6
"""Of the highest rate, so that rounding leaves it feasible."""


@dataclass(frozen=True, slots=True)
class Instance:
    """What can be rented.

    Attributes:
        available: At most.
        rates_rps: Requests per second in time, of each bucket alone.
    """

    usd_per_hour: float
    available: int
    rates_rps: tuple[float, ...]


def plan_melange(problem: Problem, seed: int, clock: Callable[[], float]) -> Plan:
    """The instances that the integer program rents."""
    del clock
    pools = Pools(problem)
    buckets = _buckets(problem.workload)
    designs = {kind: pools.best_together(kind, POLICIES) for kind in pools.types}
    held = {kind: groups for kind, groups in designs.items() if groups}
    instances = _instances(problem, held, buckets)
    shares = tuple(share for share, _ in buckets)
    highest_rps = _highest_rate_rps(instances, shares) if instances else 0.0
    rate_rps = problem.workload.rate_rps
    if problem.objective is Objective.CAPACITY or rate_rps > highest_rps:
        rate_rps = highest_rps * _MARGIN
    counts = cheapest_mix(instances, shares, rate_rps)
    placed = [
        (Phase.COLOCATED, design)
        for groups, count in zip(held.values(), counts, strict=True)
        for design in groups[:count]
    ]
    plans = list(shared_plans(pools, tuple(placed), strategy="melange", seed=seed))
    return best_simulated(plans, problem, POLICIES) or plans[0]


def cheapest_mix(
    instances: Sequence[Instance], shares: Sequence[float], rate_rps: float
) -> tuple[int, ...]:
    """How many of each to rent.

    Args:
        instances: On offer.
        shares: Of every bucket in the requests.
        rate_rps: To serve; all instances together can.
    """
    lp = pulp.LpProblem("mix", pulp.LpMinimize)
    counts = [
        lp.add_variable(f"n_{i}", 0, each.available, cat="Integer")
        for i, each in enumerate(instances)
    ]
    parts = _assign(lp, instances, counts)
    for bucket, share in enumerate(shares):
        lp += pulp.lpSum(part[bucket] for part in parts) == share * rate_rps
    prices = zip(instances, counts, strict=True)
    lp += pulp.lpSum(each.usd_per_hour * count for each, count in prices)
    lp.solve(pulp.HiGHS(msg=False, threads=1))
    return tuple(round(count.value() or 0) for count in counts)


def _highest_rate_rps(instances: Sequence[Instance], shares: Sequence[float]) -> float:
    lp = pulp.LpProblem("rate", pulp.LpMaximize)
    rate = lp.add_variable("rate", 0)
    parts = _assign(lp, instances, [each.available for each in instances])
    for bucket, share in enumerate(shares):
        lp += pulp.lpSum(part[bucket] for part in parts) == share * rate
    lp += rate
    lp.solve(pulp.HiGHS(msg=False, threads=1))
    return float(rate.value() or 0.0)


def _assign(
    lp: pulp.LpProblem, instances: Sequence[Instance], counts: Sequence[pulp.LpVariable | int]
) -> list[list[pulp.LpVariable]]:
    """Requests per second of every bucket on every type; they fill no more than is rented."""
    parts = []
    for i, (each, count) in enumerate(zip(instances, counts, strict=True)):
        row = [
            lp.add_variable(f"rps_{i}_{bucket}", 0, None if rate_rps > 0 else 0)
            for bucket, rate_rps in enumerate(each.rates_rps)
        ]
        able = [pair for pair in zip(row, each.rates_rps, strict=True) if pair[1] > 0]
        lp += pulp.lpSum(part * (1 / rate_rps) for part, rate_rps in able) <= count
        parts.append(row)
    return parts


def _instances(
    problem: Problem,
    held: Mapping[str, Sequence[Design]],
    buckets: Sequence[tuple[float, Workload]],
) -> list[Instance]:
    shapes = [Evaluator(replace(problem, workload=each)).shapes for _, each in buckets]
    prices = {kind.name: kind.usd_per_hour for kind in problem.cluster.types}
    return [
        Instance(
            usd_per_hour=prices[kind] * groups[0].tp * groups[0].pp,
            available=len(groups),
            rates_rps=tuple(each.alone_rps(groups[0], Phase.COLOCATED) for each in shapes),
        )
        for kind, groups in held.items()
    ]


def _buckets(workload: Workload) -> list[tuple[float, Workload]]:
    """Share and requests of every bucket; edges are quantiles."""
    edges = [
        [lengths.percentile(100 * i / _BUCKETS) for i in range(1, _BUCKETS)]
        for lengths in (workload.prompt, workload.output)
    ]
    found: dict[tuple[int, ...], list[tuple[float, float]]] = {}
    for request in workload.requests:
        pairs = zip(request, edges, strict=True)
        key = tuple(sum(tokens > edge for edge in own) for tokens, own in pairs)
        found.setdefault(key, []).append(request)
    total = len(workload.requests)
    return [
        (len(requests) / total, replace(workload, requests=tuple(requests)))
        for _, requests in sorted(found.items())
    ]
