"""HexGen: colocated groups of unequal GPUs, each with its own parallel configuration.

Source: Jiang et al., "HexGen: Generative Inference of Large Language Model over Heterogeneous
Environment" (ICML 2024). Its public code contains no scheduler.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from thunderserve.control.planner.simulator import ServingPolicy
from thunderserve.control.planner.solve import solve
from thunderserve.control.planner.strategies.judge import best_simulated
from thunderserve.control.planner.strategies.vllm import plan_vllm

if TYPE_CHECKING:
    from collections.abc import Callable

    from thunderserve.control.planner.problem import Problem
    from thunderserve.core.plan import Plan

__all__ = ["DEPARTURES", "POLICIES", "plan_hexgen"]

DEPARTURES = (
    "partitions are found by our tabu search, moves and linear program, not a genetic algorithm",
    "layers are balanced greedily instead of by dynamic programming",
    "all stages of a group have one tensor-parallel degree; the source's may differ",
    "prompts are chunked and requests batched continuously, which the source's engine did not do",
)

POLICIES = (ServingPolicy(),)

_MOST_NODES = 2
"""Of one group, when the search looks beyond one node."""


def plan_hexgen(problem: Problem, seed: int, clock: Callable[[], float]) -> Plan:
    """The best of searches within nodes and across them, and of equal GPUs in every group."""
    spans = {1, min(_MOST_NODES, problem.engine.max_nodes)}
    found = [plan_vllm(problem, seed, clock)]
    for span in sorted(spans):
        bounded = replace(problem, engine=replace(problem.engine, max_nodes=span))
        found.append(solve(bounded, seed=seed, clock=clock))
    best = best_simulated(found, problem, POLICIES) or found[0]
    return replace(
        best,
        strategy="hexgen",
        seed=seed,
        search_seconds=sum(plan.search_seconds for plan in found),
        search_evaluations=sum(plan.search_evaluations for plan in found),
    )
