"""The best plan that there is, proven, or a bound on all plans."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from thunderserve.control.planner.assembly import plan_of
from thunderserve.control.planner.certificate.ceiling import ceiling_rps, takings
from thunderserve.control.planner.certificate.columns import stock_of
from thunderserve.control.planner.certificate.dominance import undominated
from thunderserve.control.planner.certificate.master import Master
from thunderserve.control.planner.flow import Evaluator, Seat
from thunderserve.control.planner.search import Bins
from thunderserve.core.errors import InvalidArgumentError
from thunderserve.core.plan import Phase, Plan

if TYPE_CHECKING:
    from thunderserve.control.planner.certificate.columns import Stock
    from thunderserve.control.planner.problem import Problem

__all__ = ["MOST_LANES", "Best", "best_of", "optimal_plan"]

MOST_LANES = 60_000
"""Up to so many lanes every node is taken for itself; beyond, alike nodes are one."""

MOST_TAKINGS = 100
"""Of groups that span nodes: beyond, only the GPUs' arithmetic bounds them."""

PROVEN_RATIO = 1e-5
"""A solution this near its bound is the best one: nearer than the solver's numbers are exact."""


@dataclass(frozen=True, slots=True)
class Best:
    """What is known of the best plan.

    Attributes:
        upper_bound: No plan has more, in requests per second.
        objective: What the groups of `seats` have.
        exact: That is as much as any plan has.
        seats: The best groups that were found; none where alike nodes were taken together.
        chunk_tokens: What these groups compute and send at a time.
    """

    upper_bound: float
    objective: float = 0.0
    exact: bool = False
    seats: tuple[Seat, ...] = ()
    chunk_tokens: int = 0


def best_of(evaluator: Evaluator, *, time_limit_s: float = math.inf) -> Best:
    """The best groups for the evaluator's problem, or a bound on them.

    The same on every machine, as long as the time suffices. The bound holds for every size of
    chunks that the engine offers.
    """
    problem = evaluator.problem
    if problem.engine.max_nodes > 1 and takings(problem) > MOST_TAKINGS:
        return Best(ceiling_rps(problem))
    sizes = problem.engine.chunk_tokens
    found = [
        _best_at(each, size, time_limit_s / len(sizes))
        for size, each in zip(sizes, _evaluators(evaluator), strict=True)
    ]
    bound = max(each.upper_bound for each in found)
    best = max(found, key=lambda each: each.objective)
    proven = bound - best.objective <= PROVEN_RATIO * max(bound, PROVEN_RATIO)
    # A share of flippable GPUs that idle groups make up is not one of the plan's.
    exact = proven and best.exact and problem.flippable_ratio <= 0
    return replace(best, upper_bound=bound, exact=exact)


def _evaluators(evaluator: Evaluator) -> list[Evaluator]:
    sizes = evaluator.problem.engine.chunk_tokens
    return [evaluator] if len(sizes) == 1 else [evaluator.with_chunk(size) for size in sizes]


def _best_at(evaluator: Evaluator, chunk_tokens: int, time_limit_s: float) -> Best:
    """With chunks of one size."""
    problem = evaluator.problem
    pooled = problem.engine.max_nodes == 1
    stock = stock_of(evaluator, pooled=pooled)
    whole = not pooled or _lanes_by_node(stock) <= MOST_LANES
    if whole and pooled:
        stock = stock_of(evaluator, pooled=False)
    if pooled and problem.flippable_ratio <= 0:
        stock = undominated(stock)
    master = Master(problem, stock)
    if whole and pooled:
        for nodes in Bins(problem.cluster).classes:
            master.order(nodes)
    answer = master.solve(time_limit_s=time_limit_s)
    bound = min(max(0.0, answer.bound), ceiling_rps(problem))
    if not whole or not answer.feasible:
        return Best(bound)
    copies = answer.values[: len(stock.columns)]
    return Best(
        bound, answer.objective, exact=True, seats=_seats(stock, copies), chunk_tokens=chunk_tokens
    )


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
    if best.chunk_tokens != problem.engine.chunk_tokens[0]:
        evaluator = evaluator.with_chunk(best.chunk_tokens)
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
