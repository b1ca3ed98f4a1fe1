"""Splitwise: a pool of machines for prompts, one for tokens, and a mixed one between them.

Source: Patel et al., "Splitwise: Efficient Generative LLM Inference Using Phase Splitting" (ISCA
2024), provisioning sweep and join-shortest-queue; github.com/Mutinifni/splitwise-sim, scheduler.py
(MixedPoolScheduler) and scripts/run_throughput.sh.
"""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING

from thunderserve.control.planner.simulator import Dispatch, Reservation, ServingPolicy
from thunderserve.control.planner.strategies.pools import Placed, Pools
from thunderserve.core.plan import Phase

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from thunderserve.control.planner.problem import Problem
    from thunderserve.core.plan import Plan

__all__ = ["DEPARTURES", "POLICIES", "plan_splitwise"]

DEPARTURES = (
    "the better of shortest queues and fixed shares: on unequal GPUs queues may mislead",
    "the mixed pool is fixed and colocated; the source fills it while queues are long",
    "an instance is the best (tp, pp) of its type within a node; the source's is a whole machine",
    "only the divisions into pools that rank best by our cost model are simulated",
)

POLICIES = tuple(
    ServingPolicy(dispatch=dispatch, reservation=Reservation.BEFORE_TRANSFER)
    for dispatch in (Dispatch.SHORTEST_QUEUE, Dispatch.WEIGHTED)
)

_ASSESSED = 24
"""Divisions, the most promising, that a linear program ranks."""

_SIMULATED = 8
"""Of those, the best, that are simulated."""

_PHASES = (Phase.PREFILL, Phase.DECODE, Phase.COLOCATED)


def plan_splitwise(problem: Problem, seed: int, clock: Callable[[], float]) -> Plan:
    """The best division of GPU types, or of the instances of the only type, into pools."""
    del clock
    pools = Pools(problem)

    def promise_rps(placed: Placed) -> float:
        prompt, token, mixed = (
            pools.alone_rps((design for own, design in placed if own is phase), phase)
            for phase in _PHASES
        )
        return min(prompt, token) + mixed

    divisions = _by_type(pools) if len(pools.types) > 1 else _by_count(pools, pools.types[0])
    ranked = sorted(dict.fromkeys(divisions), key=promise_rps, reverse=True)
    best = pools.best_placed(pools.promising(ranked[:_ASSESSED], _SIMULATED), POLICIES)
    return pools.plan(best, strategy="splitwise", seed=seed)


def _by_type(pools: Pools) -> Iterator[Placed]:
    """All GPUs of a type are in one pool."""
    for phases in product(_PHASES, repeat=len(pools.types)):
        chosen = zip(pools.types, phases, strict=True)
        yield tuple((phase, design) for kind, phase in chosen for design in pools.best(kind, phase))


def _by_count(pools: Pools, kind: str) -> Iterator[Placed]:
    """So many instances of one configuration in every pool."""
    for configuration in pools.configurations(kind):
        designs = pools.groups(kind, configuration)
        for prompt in range(len(designs) + 1):
            for token in range(len(designs) - prompt + 1):
                mixed = len(designs) - prompt - token
                if (prompt > 0) == (token > 0):
                    counts = (prompt, token, mixed)
                    sizes = zip(_PHASES, counts, strict=True)
                    phases = [phase for phase, count in sizes for _ in range(count)]
                    yield tuple(zip(phases, designs, strict=True))
