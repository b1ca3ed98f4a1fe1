"""HexGen: colocated groups of unequal GPUs, each with its own parallel configuration.

Source: Jiang et al., "HexGen: Generative Inference of Large Language Model over Heterogeneous
Environment" (ICML 2024). Its public code contains no scheduler.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from thunderserve.control.planner.design import design_of
from thunderserve.control.planner.evaluate import Evaluator, Seat
from thunderserve.control.planner.solve import solve

if TYPE_CHECKING:
    from collections.abc import Callable

    from thunderserve.control.planner.problem import Problem
    from thunderserve.core.plan import Plan

__all__ = ["DEPARTURES", "plan_hexgen"]

DEPARTURES = (
    "partitions are found by our tabu search, moves and linear program, not a genetic algorithm",
    "layers are balanced greedily instead of by dynamic programming",
    "all stages of a group have one tensor-parallel degree; the source's may differ",
    "prompts are chunked and requests batched continuously, which the source's engine did not do",
)

_MOST_NODES = 2
"""Of one group, when the search looks beyond one node; the better of both plans is taken."""


def plan_hexgen(problem: Problem, seed: int, clock: Callable[[], float]) -> Plan:
    """The better of the searches within nodes and across them."""
    spans = {1, min(max(_MOST_NODES, problem.engine.max_nodes), len(problem.cluster.nodes))}
    found: list[tuple[float, Plan]] = []
    for span in sorted(spans):
        bounded = replace(problem, engine=replace(problem.engine, max_nodes=span))
        plan = solve(bounded, seed=seed, clock=clock)
        found.append((_score(problem, plan), plan))
    _, best = max(found, key=lambda each: each[0])
    return replace(
        best,
        strategy="hexgen",
        search_seconds=sum(plan.search_seconds for _, plan in found),
        search_evaluations=sum(plan.search_evaluations for _, plan in found),
    )


def _score(problem: Problem, plan: Plan) -> float:
    seats = [Seat(group.id, group.phase, design_of(group)) for group in plan.groups]
    return Evaluator(problem).assess(seats).score
