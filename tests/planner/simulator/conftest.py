"""Small plans and traces that the simulator's tests share."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import pytest

from thunderserve.core.draws import Draws
from thunderserve.core.plan import Group, Phase, Plan, Route, Stage
from thunderserve.core.trace import Trace, TracedRequest

if TYPE_CHECKING:
    from thunderserve.control.planner.problem import Problem
    from thunderserve.core.hardware import Cluster

MakePlan = Callable[..., Plan]
MakeTrace = Callable[..., Trace]
Places = Sequence[Sequence[str]]


@pytest.fixture(scope="session")
def make_plan() -> MakePlan:
    """Builds a plan from each group's phase and the GPU ids of its stages."""

    def make(
        problem: Problem,
        groups: Sequence[tuple[Phase, Places]],
        weights: Mapping[tuple[int, int], float] | None = None,
        chunk_tokens: int = 0,
    ) -> Plan:
        made = tuple(
            _group(f"g{index}", phase, stages, problem.cluster, problem.model.layers)
            for index, (phase, stages) in enumerate(groups)
        )
        shares = weights if weights is not None else dict.fromkeys(_pairs(made), 1.0)
        total = sum(shares.values())
        routes = tuple(
            Route(f"g{first}", f"g{later}", weight / total)
            for (first, later), weight in shares.items()
        )
        return Plan(0, "test", 0, problem.model.name, made, routes, chunk_tokens=chunk_tokens)

    return make


def _group(name: str, phase: Phase, stages: Places, cluster: Cluster, layers: int) -> Group:
    gpus = {gpu.id: gpu for gpu in cluster.gpus}
    each = [layers // len(stages)] * len(stages)
    each[0] += layers - sum(each)
    made = tuple(
        Stage(count, tuple(gpus[gpu] for gpu in stage))
        for count, stage in zip(each, stages, strict=True)
    )
    return Group(name, phase, len(stages[0]), len(stages), made)


def _pairs(groups: Sequence[Group]) -> list[tuple[int, int]]:
    """Every route that joins their phases."""
    return [
        (first, later)
        for first, one in enumerate(groups)
        for later, other in enumerate(groups)
        if (one.phase, other.phase) == (Phase.PREFILL, Phase.DECODE)
        or (first == later and one.phase is Phase.COLOCATED)
    ]


@pytest.fixture(scope="session")
def make_trace() -> MakeTrace:
    """Builds a trace; by default Poisson arrivals of lengths between 1 and what is asked."""

    def make(
        count: int,
        *,
        rate_rps: float = 5.0,
        prompt: Callable[[Draws], int] = lambda draws: 1 + draws.below(3000),
        output: Callable[[Draws], int] = lambda draws: 1 + draws.below(100),
        gap_s: Callable[[Draws], float] | None = None,
        seed: int = 0,
    ) -> Trace:
        draws, now_s, requests = Draws(seed), 0.0, []
        for _ in range(count):
            now_s += gap_s(draws) if gap_s else draws.exponential(1 / rate_rps)
            requests.append(TracedRequest(now_s, prompt(draws), output(draws)))
        return Trace("test", tuple(requests))

    return make
