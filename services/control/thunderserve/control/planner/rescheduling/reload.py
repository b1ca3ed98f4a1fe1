"""How long new weights take to load: what a full re-plan costs before it serves."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from thunderserve.control.planner.design import design_of, replica_of
from thunderserve.control.planner.flow import Evaluator, Seat
from thunderserve.control.planner.rescheduling.phases import SPLIT

if TYPE_CHECKING:
    from collections.abc import Sequence

    from thunderserve.control.planner.problem import EngineLimits, Problem
    from thunderserve.core.plan import Group, Plan

__all__ = ["DEFAULT_LOAD_BYTES_PER_S", "Replan", "kept_groups", "reload_s", "weigh_replan"]

DEFAULT_LOAD_BYTES_PER_S = 2e9
"""From a host's disk to its GPUs: what one NVMe drive reads; rented hosts are often slower."""


@dataclass(frozen=True, slots=True)
class Replan:
    """A full re-plan: groups and layers change too, so weights are loaded.

    Attributes:
        goodput_rps: Requests per second in time, once it serves.
        loading_rps: The same while weights load, by the groups that stay.
        reload_s: How long that is.
    """

    goodput_rps: float
    loading_rps: float
    reload_s: float

    def payback_s(self, without_rps: float) -> float | None:
        """After how long it has served as many as the alternative; None when it never has."""
        gain = self.goodput_rps - without_rps
        if gain <= 0:
            return None
        return self.reload_s * (1 + max(0.0, without_rps - self.loading_rps) / gain)


def weigh_replan(
    problem: Problem, before: Sequence[Group], plan: Plan, *, bytes_per_s: float
) -> Replan:
    """What a full re-plan gives and costs.

    Args:
        problem: What both serve, in chunks of the same size.
        before: Groups that hold weights now.
        plan: The full re-plan.
        bytes_per_s: At which a host loads weights.
    """
    evaluator = Evaluator(problem)
    kept = kept_groups(problem.engine, before, plan.groups)
    after, staying = (
        evaluator.assess([Seat(group.id, group.phase, design_of(group)) for group in groups])
        for groups in (plan.groups, kept)
    )
    return Replan(
        after.flow.attained_rps,
        staying.flow.attained_rps,
        reload_s(problem, before, plan.groups, bytes_per_s=bytes_per_s),
    )


def kept_groups(
    engine: EngineLimits, before: Sequence[Group], after: Sequence[Group]
) -> tuple[Group, ...]:
    """Those of the groups after that need no loading: the same GPUs, stages and layers.

    Their phase is the same too, or one that the engine can flip to. GPUs of one node and type are
    not told apart: a plan may take either.
    """
    held = [(design_of(group), group.phase) for group in before]
    kept: list[Group] = []
    # Those that keep their phase choose first.
    for group in sorted(after, key=lambda g: (design_of(g), g.phase) not in held):
        design = design_of(group)
        present = [(design, group.phase)]
        if group.phase in SPLIT and group.pp <= engine.flip_max_pp:
            present += [(design, phase) for phase in SPLIT]
        if found := [each for each in present if each in held]:
            held.remove(found[0])
            kept.append(group)
    return tuple(kept)


def reload_s(
    problem: Problem, before: Sequence[Group], after: Sequence[Group], *, bytes_per_s: float
) -> float:
    """Seconds until every group of the new plan holds its weights.

    Hosts load at the same time, each at `bytes_per_s` for all its GPUs together; the host with the
    most to load decides. Starting engines is not counted, and no file cache is counted on.
    """
    kept = {group.id for group in kept_groups(problem.engine, before, after)}
    by_node: dict[str, float] = defaultdict(float)
    for group in after:
        if group.id in kept:
            continue
        replica = replica_of(design_of(group), problem.cluster)
        for index, stage in enumerate(group.stages):
            loaded = problem.cost.stage_weight_bytes(replica, index)
            by_node[stage.gpus[0].node] += loaded
    return max(by_node.values(), default=0.0) / bytes_per_s
