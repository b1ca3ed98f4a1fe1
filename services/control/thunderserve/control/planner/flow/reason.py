"""Why a plan is as it is, in a sentence."""

from __future__ import annotations

from typing import TYPE_CHECKING

from thunderserve.core.hardware import GIGABIT_PER_S
from thunderserve.core.plan import Phase

if TYPE_CHECKING:
    from thunderserve.control.planner.flow.evaluate import Assessment, Evaluator, Seat

__all__ = ["reason_for"]

_WORTH_SAYING = 0.05


def reason_for(evaluator: Evaluator, assessment: Assessment) -> str:
    """What the choice of colocated groups and of the chunk follows from; empty without a choice."""
    evaluator = evaluator.with_chunk(assessment.chunk_tokens)
    used = [seat for seat in assessment.seats if assessment.load_rps(seat.id) > 0]
    said = [_colocated(evaluator, used), _chunk(evaluator, used)]
    return "; ".join(each for each in said if each)


def _colocated(evaluator: Evaluator, used: list[Seat]) -> str:
    phases = set(evaluator.problem.engine.phases)
    both = [seat for seat in used if seat.phase is Phase.COLOCATED]
    if not both or phases == {Phase.COLOCATED}:
        return ""
    slowest = max(both, key=lambda seat: evaluator.shapes.port_exposed_s(seat.design))
    names = ", ".join(seat.id for seat in both)
    exposed_s = evaluator.shapes.port_exposed_s(slowest.design)
    missing = evaluator.shapes.late_by_transfer_ratio(slowest.design)
    node = slowest.design.stages[0].node
    port = evaluator.problem.cluster.node(node).network.bytes_per_s / GIGABIT_PER_S
    if missing < _WORTH_SAYING:
        return f"{names} prefill and decode: split, the groups would serve fewer in time"
    return (
        f"{names} prefill and decode: {node}'s {port:g} Gbit/s port would expose {exposed_s:.2g} s "
        f"of KV transfer for a mean prompt, and {missing:.0%} of requests would be late by it alone"
    )


def _chunk(evaluator: Evaluator, used: list[Seat]) -> str:
    sizes = evaluator.problem.engine.chunk_tokens
    if len(sizes) == 1 or not used:
        return ""
    chosen = f"chunks of {evaluator.chunk_tokens} tokens"
    first = [seat for seat in used if seat.phase is Phase.PREFILL]
    if not first:
        return f"{chosen} serve more in time than any other size"
    exposed = {
        size: max(evaluator.with_chunk(size).shapes.port_exposed_s(s.design) for s in first)
        for size in sizes
    }
    told = ", ".join(f"{size}: {exposed[size]:.2g} s" for size in sorted(sizes))
    return f"{chosen} serve most in time; exposed KV transfer of a mean prompt is {told}"
