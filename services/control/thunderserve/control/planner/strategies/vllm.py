"""vLLM: every GPU type serves with the (tp, pp) that suits it best, prefill and decode together.

Source: Kwon et al., "Efficient Memory Management for Large Language Model Serving with
PagedAttention" (SOSP 2023); github.com/vllm-project/vllm. It plans no cluster: DistServe's
simulator (github.com/LLMServe/DistServe, simdistserve/benchmarks/search_configs.py) enumerates the
(tp, pp) of its vLLM baseline, and so does this.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from thunderserve.control.planner.simulator import ServingPolicy
from thunderserve.control.planner.strategies.judge import best_simulated
from thunderserve.control.planner.strategies.pools import Pools
from thunderserve.control.planner.strategies.sharing import shared_plans
from thunderserve.core.plan import Phase

if TYPE_CHECKING:
    from collections.abc import Callable

    from thunderserve.control.planner.problem import Problem
    from thunderserve.core.plan import Plan

__all__ = ["DEPARTURES", "POLICIES", "plan_vllm"]

POLICIES = (ServingPolicy(),)

DEPARTURES = (
    "vLLM balances no load between replicas: ours get the best of several shares when simulated",
    "(tp, pp) is the best of each GPU type when simulated, not the operator's choice",
    "prompts are chunked, today's default; the paper's version let prefill go first",
)


def plan_vllm(problem: Problem, seed: int, clock: Callable[[], float]) -> Plan:
    """As many replicas as fit, of each GPU type's best configuration."""
    del clock
    pools = Pools(problem)
    placed = tuple(
        (Phase.COLOCATED, design)
        for kind in pools.types
        for design in pools.best_together(kind, POLICIES)
    )
    plans = list(shared_plans(pools, placed, strategy="vllm", seed=seed))
    return best_simulated(plans, problem, POLICIES) or plans[0]
