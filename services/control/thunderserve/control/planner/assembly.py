"""From the planner's choice to a plan: groups get GPUs with ids, flows become routes."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from typing import TYPE_CHECKING

from thunderserve.control.planner.flow import predict, reason_for
from thunderserve.core.plan import Gpu, Group, Plan, Route, Stage

if TYPE_CHECKING:
    from thunderserve.control.planner.design import Design
    from thunderserve.control.planner.flow import Assessment, Evaluator, Seat
    from thunderserve.control.planner.problem import Problem

__all__ = ["plan_of", "routes_of"]

_SMALLEST_WEIGHT = 1e-9


def plan_of(
    evaluator: Evaluator, best: Assessment, *, strategy: str, seed: int, keep_idle: bool = False
) -> Plan:
    """The plan of an assessment; groups that nothing flows through are left out, unless kept."""
    used = [seat for seat in best.seats if keep_idle or best.load_rps(seat.id) > 0]
    routes = routes_of(best)
    return Plan(
        epoch=0,
        strategy=strategy,
        seed=seed,
        model=evaluator.problem.model.name,
        groups=_groups(evaluator.problem, used),
        routes=routes,
        predicted=predict(
            evaluator.with_chunk(best.chunk_tokens), replace(best, seats=tuple(used))
        ),
        search_evaluations=evaluator.flows_solved,
        chunk_tokens=best.chunk_tokens,
        reason=reason_for(evaluator, best),
    )


def _groups(problem: Problem, seats: list[Seat]) -> tuple[Group, ...]:
    """Groups with GPU ids: those of a node and type in order."""
    free: dict[tuple[str, str], list[Gpu]] = defaultdict(list)
    for gpu in reversed(problem.cluster.gpus):
        free[gpu.node, gpu.type].append(gpu)

    def stages(design: Design) -> tuple[Stage, ...]:
        return tuple(
            Stage(stage.layers, tuple(free[stage.node, kind].pop() for kind in stage.types))
            for stage in design.stages
        )

    return tuple(
        Group(seat.id, seat.phase, seat.design.tp, seat.design.pp, stages(seat.design))
        for seat in seats
    )


def routes_of(assessment: Assessment) -> tuple[Route, ...]:
    """The flow as routes whose weights sum to 1."""
    served = assessment.flow.served_rps
    if served <= 0:
        return ()
    flows = zip(assessment.problem.pairs, assessment.flow.rps, strict=True)
    used = [(pair, rps) for pair, rps in flows if rps > _SMALLEST_WEIGHT * served]
    total = sum(rps for _, rps in used)
    return tuple(Route(pair.prefill, pair.decode, rps / total) for pair, rps in used)
