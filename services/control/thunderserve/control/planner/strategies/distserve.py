"""DistServe: prefill and decode apart, each with its own (tp, pp), on equal GPUs.

Source: Zhong et al., "DistServe: Disaggregating Prefill and Decoding for Goodput-optimized Large
Language Model Serving" (OSDI 2024), algorithms 1 and 2; github.com/LLMServe/DistServe,
simdistserve/benchmarks/search_configs.py.
"""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING

from thunderserve.control.planner.simulator import Dispatch, Reservation, ServingPolicy
from thunderserve.control.planner.strategies.pools import Configuration, Placed, Pools
from thunderserve.core.plan import Phase

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from thunderserve.control.planner.design import Design
    from thunderserve.control.planner.problem import Problem
    from thunderserve.core.plan import Plan

__all__ = ["DEPARTURES", "POLICIES", "plan_distserve"]

DEPARTURES = (
    "the better of shortest queues and fixed shares: on unequal GPUs queues may mislead",
    "only the placements that rank best by our cost model are simulated",
    "on unequal GPUs each type is a deployment of its own; the source knows equal GPUs only",
    "groups stay within a node; the source also cuts both phases into segments over nodes",
)

POLICIES = tuple(
    ServingPolicy(dispatch=dispatch, reservation=Reservation.BEFORE_TRANSFER)
    for dispatch in (Dispatch.SHORTEST_QUEUE, Dispatch.WEIGHTED)
)

_ASSESSED = 12
"""Placements of a type, the most promising, that a linear program ranks."""

_SIMULATED = 4
"""Of those, the best, that are simulated."""


def plan_distserve(problem: Problem, seed: int, clock: Callable[[], float]) -> Plan:
    """The best placement of every GPU type."""
    del clock
    pools = Pools(problem)
    placed = [group for kind in pools.types for group in _best(pools, kind)]
    return pools.plan(tuple(placed), strategy="distserve", seed=seed)


def _best(pools: Pools, kind: str) -> Placed:
    """The placement with the highest goodput; empty when the type cannot hold both phases."""

    def promise_rps(placed: Placed) -> float:
        return min(
            pools.alone_rps((design for own, design in placed if own is phase), phase)
            for phase in (Phase.PREFILL, Phase.DECODE)
        )

    ranked = sorted(dict.fromkeys(_placements(pools, kind)), key=promise_rps, reverse=True)
    return pools.best_placed(pools.promising(ranked[:_ASSESSED], _SIMULATED), POLICIES)


def _placements(pools: Pools, kind: str) -> Iterator[Placed]:
    """Both phases on every node, where the KV cache need not leave it, or whole nodes for each."""
    configurations = pools.configurations(kind)
    nodes = pools.nodes(kind)
    for prefill, decode in product(configurations, repeat=2):
        for prefills in range(1, max(nodes.values()) // prefill.size + 1):
            shared = [_shared(pools, kind, node, (prefill, prefills), decode) for node in nodes]
            placed = tuple(group for groups in shared for group in groups)
            if {phase for phase, _ in placed} == {Phase.PREFILL, Phase.DECODE}:
                yield placed
        for own in range(1, len(nodes)):
            yield tuple(
                (Phase.PREFILL if i < own else Phase.DECODE, design)
                for i, node in enumerate(nodes)
                for design in pools.filled(kind, node, prefill if i < own else decode)
            )


def _shared(
    pools: Pools, kind: str, node: str, prefill: tuple[Configuration, int], decode: Configuration
) -> list[tuple[Phase, Design]]:
    """So many prefill groups on a node, and decode groups on what they leave."""
    configuration, most = prefill
    first, later = pools.design(kind, node, configuration), pools.design(kind, node, decode)
    if first is None or later is None:
        return []
    size = pools.nodes(kind)[node]
    prefills = min(most, size // configuration.size)
    decodes = (size - prefills * configuration.size) // decode.size
    return [(Phase.PREFILL, first)] * prefills + [(Phase.DECODE, later)] * decodes
