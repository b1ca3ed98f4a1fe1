"""The best plan that there is, proven, or a bound on all plans."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from thunderserve.control.planner.assembly import plan_of
from thunderserve.control.planner.certificate.columns import stock_of
from thunderserve.control.planner.certificate.dominance import undominated
from thunderserve.control.planner.certificate.master import Master
from thunderserve.control.planner.evaluate import Evaluator, Seat
from thunderserve.core.errors import InvalidArgumentError
from thunderserve.core.plan import Phase, Plan

if TYPE_CHECKING:
    from thunderserve.control.planner.certificate.columns import Stock
    from thunderserve.control.planner.problem import Problem

__all__ = ["MOST_LANES", "Best", "best_of", "optimal_plan"]

MOST_LANES = 60_000
"""Up to so many lanes every node is taken for itself; beyond, alike nodes are one."""

PROVEN_RATIO = 1e-5
"""A solution this near its bound is the best one: nearer than the solver's numbers are exact."""


@dataclass(frozen=True, slots=True)
class Best:
    """What is known of the best plan.

    Attributes:
        upper_bound: No plan has more, in requests per second.
        exact: The groups of `seats` have as much.
        seats: The best groups that were found; none where alike nodes were taken together.
    """

    upper_bound: float
    exact: bool
    seats: tuple[Seat, ...] = ()


def best_of(evaluator: Evaluator, *, time_limit_s: float = math.inf) -> Best:
    """The best groups for the evaluator's problem, or a bound on them.

    The same on every machine, as long as the time suffices.
    """
    problem = evaluator.problem
    pooled = problem.engine.max_nodes == 1
    stock = stock_of(evaluator, pooled=pooled)
    whole = not pooled or _lanes_by_node(stock) <= MOST_LANES
    if whole and pooled:
        stock = stock_of(evaluator, pooled=False)
    stock = undominated(stock) if problem.engine.max_nodes == 1 else stock
    answer = Master(problem, stock).solve(time_limit_s=time_limit_s)
    bound = max(0.0, answer.bound)
    if not whole or not answer.feasible:
        return Best(bound, exact=False)
    copies = answer.values[: len(stock.columns)]
    exact = bound - answer.objective <= PROVEN_RATIO * max(bound, PROVEN_RATIO)
    return Best(bound, exact, _seats(stock, copies))


def optimal_plan(problem: Problem, *, time_limit_s: float = math.inf) -> Plan:
    """The best plan for a problem, proven.

    Raises:
        InvalidArgumentError: No plan could be proven the best within the time.
    """
    evaluator = Evaluator(problem)
    best = best_of(evaluator, time_limit_s=time_limit_s)
    if not best.exact:
        raise InvalidArgumentError(
            f"no plan for these {len(problem.cluster.gpus)} GPUs can be proven the best in "
            f"{time_limit_s} s; search for one",
            param="cluster",
        )
    return plan_of(evaluator, evaluator.assess(best.seats), strategy="optimal", seed=0)


def _lanes_by_node(stock: Stock) -> int:
    """Lanes of the same stock, were every node a site."""
    phases: Counter[Phase] = Counter()
    for column in stock.columns:
        phases[column.phase] += len(stock.sites[column.sites[0]].nodes)
    return phases[Phase.PREFILL] * phases[Phase.DECODE] + phases[Phase.COLOCATED]


def _seats(stock: Stock, copies: tuple[float, ...]) -> tuple[Seat, ...]:
    """A seat for every copy."""
    chosen = [
        column
        for column, number in zip(stock.columns, copies, strict=True)
        for _ in range(round(number))
    ]
    return tuple(Seat(f"g{i}", each.phase, each.design) for i, each in enumerate(chosen))
