"""What a strategy is: limits that it plans under, a search, and how its system serves."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from thunderserve.control.planner.simulator import ServingPolicy
from thunderserve.core.plan import Phase
from thunderserve.core.request import WireMode

if TYPE_CHECKING:
    from collections.abc import Callable

    from thunderserve.control.planner.problem import Problem
    from thunderserve.core.plan import Plan

    Search = Callable[[Problem, int, Callable[[], float]], Plan]

__all__ = ["Strategy"]

_RELAXED = (1.0, 0.75, 0.5, 0.25)
"""Of the target, tried in turn until the cost model finds that some requests can be served."""


@dataclass(frozen=True, slots=True)
class Strategy:
    """One system's way to use a cluster.

    Attributes:
        source: The paper, and the code that was read.
        departures: Where this differs from the source.
        phases: That its groups take.
        search: Makes its plan for a problem that is posed to it.
        policies: Ways in which its system may serve; the best of them counts.
        sends_raw: Its KV cache travels at 16 bits, as its system has no codec.
        most_nodes: Of one of its groups, if more than the problem allows; None is any number.
    """

    name: str
    source: str
    departures: tuple[str, ...]
    phases: tuple[Phase, ...]
    search: Search
    policies: tuple[ServingPolicy, ...] = field(default_factory=lambda: (ServingPolicy(),))
    sends_raw: bool = False
    most_nodes: int | None = 1

    def pose(self, problem: Problem) -> Problem:
        """The problem under what the strategy's system can do; its plans are valid for this one."""
        most = len(problem.cluster.nodes) if self.most_nodes is None else self.most_nodes
        nodes = max(most, problem.engine.max_nodes)
        return replace(
            problem,
            engine=replace(problem.engine, phases=self.phases, max_nodes=nodes),
            wire_mode=WireMode.RAW16 if self.sends_raw else problem.wire_mode,
        )

    def plan(self, problem: Problem, *, seed: int = 0, clock: Callable[[], float]) -> Plan:
        """The strategy's plan for the problem; for a lower target where this one is out of reach.

        Args:
            problem: As it is for all strategies; it is posed to this one here.
            seed: Of draws, where there are any.
            clock: Monotonic seconds.

        Raises:
            InvalidArgumentError: The model fits on no group that the strategy knows.
        """
        posed = self.pose(problem)
        plans = (
            self.search(replace(posed, target_ratio=share * posed.target_ratio), seed, clock)
            for share in _RELAXED
        )
        plan = next(plans)
        while not plan.routes and (relaxed := next(plans, None)) is not None:
            plan = relaxed
        return plan
