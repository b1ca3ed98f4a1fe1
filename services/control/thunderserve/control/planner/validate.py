"""Checks a plan against the hardware, the model and the engine; trusts nothing that planned it."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from thunderserve.core.plan import WEIGHT_TOLERANCE, Group, Phase, Plan, Stage

if TYPE_CHECKING:
    from collections.abc import Iterator

    from thunderserve.control.planner.problem import EngineLimits, Problem
    from thunderserve.core.hardware import Cluster
    from thunderserve.core.model import ModelSpec

__all__ = ["Violation", "validate"]


@dataclass(frozen=True, slots=True)
class Violation:
    """A rule that a plan breaks; `where` is a group, a GPU or a route, `reason` one sentence."""

    rule: str
    where: str
    reason: str


def validate(plan: Plan, problem: Problem) -> tuple[Violation, ...]:
    """Everything that is wrong with a plan; nothing when it can be served."""
    found = [*_gpus(plan, problem.cluster), *_routes(plan, problem.engine)]
    if plan.model != problem.model.name:
        reason = f"the plan is for {plan.model}, not for {problem.model.name}"
        found.insert(0, Violation("model", "plan", reason))
    for group in plan.groups:
        found += _shape(group, problem.model, problem.engine)
        found += _memory(group, problem)
    return tuple(found)


def _gpus(plan: Plan, cluster: Cluster) -> Iterator[Violation]:
    known = {gpu.id: gpu for gpu in cluster.gpus}
    used = [(gpu, group) for group in plan.groups for gpu in group.gpus]
    for gpu_id, times in Counter(gpu.id for gpu, _ in used).items():
        if times > 1:
            yield Violation("gpu-twice", gpu_id, f"GPU {gpu_id} is in {times} places")
    for gpu, group in used:
        there = known.get(gpu.id)
        if there is None:
            reason = f"group {group.id} uses GPU {gpu.id}, which the cluster lacks"
            yield Violation("gpu-unknown", gpu.id, reason)
        elif there.type != gpu.type:
            reason = f"GPU {gpu.id} is planned as {gpu.type}, but is {there.type}"
            yield Violation("gpu-type", gpu.id, reason)


def _shape(group: Group, model: ModelSpec, engine: EngineLimits) -> Iterator[Violation]:
    def broken(rule: str, reason: str) -> Violation:
        return Violation(rule, group.id, f"group {group.id} {reason}")

    if (layers := sum(stage.layers for stage in group.stages)) != model.layers:
        yield broken("layers", f"holds {layers} layers; {model.name} has {model.layers}")
    for stage in group.stages:
        nodes = sorted({gpu.node for gpu in stage.gpus})
        if len(nodes) > 1:
            yield broken("tp-across-nodes", f"has a stage on {' and '.join(nodes)}")
    nodes = sorted({gpu.node for gpu in group.gpus})
    if len(nodes) > engine.max_nodes:
        yield broken("nodes", f"spans {len(nodes)} nodes; the engine runs on {engine.max_nodes}")
    if group.tp > engine.max_tp or model.heads % group.tp:
        yield broken(
            "tp", f"has tp {group.tp}; {model.heads} heads on at most {engine.max_tp} GPUs allow no"
        )
    if group.pp > engine.max_pp:
        yield broken("pp", f"has pp {group.pp}; the engine allows {engine.max_pp}")
    if group.phase not in engine.phases:
        yield broken("phase", f"is {group.phase}, which the engine cannot do")


def _memory(group: Group, problem: Problem) -> Iterator[Violation]:
    sizes = {kind.name: kind.memory_bytes for kind in problem.cluster.types}
    for index, stage in enumerate(group.stages):
        needed = _weights(group, index, stage, problem.model) / len(stage.gpus)
        for gpu in stage.gpus:
            room = sizes.get(gpu.type, math.inf) * problem.efficiency.memory_use_ratio
            if needed > room:
                yield Violation(
                    "memory",
                    gpu.id,
                    f"group {group.id} puts {needed / 1e9:.1f} GB of weights on GPU {gpu.id}, "
                    f"which has room for {room / 1e9:.1f} GB",
                )


def _weights(group: Group, index: int, stage: Stage, model: ModelSpec) -> float:
    """Bytes of a stage's weights over all its GPUs."""
    tables = int(index == 0)
    if index == len(group.stages) - 1 and not (model.tied_embeddings and index == 0):
        tables += 1
    weights = stage.layers * model.layer_parameters + tables * model.vocab * model.hidden
    return weights * model.dtype_bytes


def _routes(plan: Plan, engine: EngineLimits) -> Iterator[Violation]:
    groups = {group.id: group for group in plan.groups}
    for route in plan.routes:
        name = f"{route.prefill} -> {route.decode}"
        first, later = groups.get(route.prefill), groups.get(route.decode)
        if first is None or later is None:
            yield Violation("route-end", name, f"route {name} names a group that is not there")
            continue
        if first is later and first.phase is Phase.COLOCATED:
            continue
        if (first.phase, later.phase) != (Phase.PREFILL, Phase.DECODE):
            reason = f"route {name} joins {first.phase} to {later.phase}"
            yield Violation("route-phases", name, reason)
        elif not engine.can_transfer(tp=(first.tp, later.tp), pp=(first.pp, later.pp)):
            reason = (
                f"route {name} needs KV cache moved from tp {first.tp}, pp {first.pp} "
                f"to tp {later.tp}, pp {later.pp}, which the engine cannot"
            )
            yield Violation("route-engine", name, reason)
    total = math.fsum(route.weight for route in plan.routes)
    if not plan.routes:
        yield Violation("weights", "routes", "the plan has no routes: it serves nobody")
    elif abs(total - 1) > WEIGHT_TOLERANCE:
        yield Violation("weights", "routes", f"route weights sum to {total}, not to 1")
