"""Helix: layers are placed so that the most requests flow through the GPUs.

A pipeline serves what its slowest stage does, and pipelines that share no GPU add up: the max-flow
of a placement is the sum over its pipelines, and the best placement is a set packing, which is
solved exactly.

Source: Mei et al., "Helix: Serving Large Language Models over Heterogeneous GPUs and Network via
Max-Flow" (ASPLOS 2025); github.com/Thesys-lab/Helix-ASPLOS25.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from thunderserve.control.planner.simulator import ServingPolicy
from thunderserve.control.planner.strategies.judge import best_simulated
from thunderserve.control.planner.strategies.packing import Packing
from thunderserve.control.planner.strategies.sharing import shared_plans
from thunderserve.core.plan import Phase

if TYPE_CHECKING:
    from collections.abc import Callable

    from thunderserve.control.planner.problem import Problem
    from thunderserve.core.plan import Plan

__all__ = ["DEPARTURES", "POLICIES", "plan_helix"]

DEPARTURES = (
    "pipelines share no GPU; in the source a GPU's layers may serve several pipelines",
    "placements are exact over such pipelines; the source's integer program is stopped early",
    "flow knows no latency: of the best placements at several depths, the timeliest is taken",
    "each request goes to a pipeline by a fixed share, the best of several when simulated",
)

POLICIES = (ServingPolicy(),)

_DEPTHS = (1, 2, 3, 4, 6, 8)


def plan_helix(problem: Problem, seed: int, clock: Callable[[], float]) -> Plan:
    """Of the placements with the greatest flow at each depth, the one that serves most in time."""
    del clock
    packing = Packing(problem)
    made = [packing.best(depth) for depth in _DEPTHS if depth <= problem.engine.max_pp]
    placements = list(dict.fromkeys(designs for designs in made if designs))
    placed = [tuple((Phase.COLOCATED, design) for design in designs) for designs in placements]
    best = packing.pools.best_placed(placed, POLICIES)
    plans = list(shared_plans(packing.pools, best, strategy="helix", seed=seed))
    return best_simulated(plans, problem, POLICIES) or plans[0]
