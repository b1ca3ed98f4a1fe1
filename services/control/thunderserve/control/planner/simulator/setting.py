"""What stays the same when a plan is simulated again at another rate."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from thunderserve.control.planner.design import Design, design_of, replica_of
from thunderserve.control.planner.problem import Problem
from thunderserve.control.planner.simulator.policy import ServingPolicy
from thunderserve.control.planner.simulator.timings import GroupTimings
from thunderserve.core.cost import CostModel
from thunderserve.core.plan import Plan

__all__ = ["Setting"]


@dataclass(frozen=True, slots=True)
class Setting:
    """A plan, what it runs on and how it serves.

    Attributes:
        designs: Of every group, by id.
        timings: Of every group, by id; groups of one shape share what the cost model was asked.
    """

    plan: Plan
    problem: Problem
    policy: ServingPolicy
    cost: CostModel
    designs: Mapping[str, Design]
    timings: Mapping[str, GroupTimings]

    @classmethod
    def of(
        cls, plan: Plan, problem: Problem, policy: ServingPolicy, cost: CostModel | None = None
    ) -> Setting:
        """The setting of a plan; the cost model is the problem's unless another is given."""
        cost = cost or problem.cost
        designs = {group.id: design_of(group) for group in plan.groups}
        replicas = {id_: replica_of(design, problem.cluster) for id_, design in designs.items()}
        shapes = {replica: GroupTimings(cost, replica) for replica in set(replicas.values())}
        timings = {id_: shapes[replica] for id_, replica in replicas.items()}
        return cls(plan, problem, policy, cost, designs, timings)

    @property
    def chunk_tokens(self) -> int:
        """Prompt tokens of one pass; the engine's first choice where the plan leaves it open."""
        return self.plan.chunk_tokens or self.problem.engine.chunk_tokens[0]
