"""The highest rate that a plan serves in time."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from thunderserve.control.planner.simulator.policy import AS_BUILT, ServingPolicy
from thunderserve.control.planner.simulator.report import SimulationReport
from thunderserve.control.planner.simulator.setting import Setting
from thunderserve.control.planner.simulator.simulate import simulate_in

if TYPE_CHECKING:
    from thunderserve.control.planner.problem import Problem
    from thunderserve.core.cost import CostModel
    from thunderserve.core.plan import Plan
    from thunderserve.core.trace import Trace

__all__ = ["RatePoint", "RateSearch", "highest_rate"]

_WIDEST = 8.0


@dataclass(frozen=True, slots=True)
class RatePoint:
    """One run: what arrived, and what became of it."""

    rate_rps: float
    report: SimulationReport

    @property
    def attainment_ratio(self) -> float:
        """Share of requests that met every bound."""
        return self.report.slo_attainment_ratio


@dataclass(frozen=True, slots=True)
class RateSearch:
    """The answer, and every run that led to it, by rate.

    Attributes:
        rate_rps: The highest that was seen to attain the target, below every one that was not; 0
            when none did.
        too_high_rps: The lowest that was not; infinity when all did.
    """

    target_ratio: float
    rate_rps: float
    too_high_rps: float
    points: tuple[RatePoint, ...]


def highest_rate(
    plan: Plan,
    problem: Problem,
    trace: Trace,
    *,
    target_ratio: float,
    policy: ServingPolicy = AS_BUILT,
    cost: CostModel | None = None,
    runs: int = 14,
    tolerance_ratio: float = 0.01,
) -> RateSearch:
    """The highest rate at which a share of `target_ratio` of the trace meets all bounds.

    The trace is compressed or stretched, so that all runs see the same requests. From its own rate
    the search strides up or down, ever wider, until one rate attains the target and one does not;
    then it halves what is between them, by ratio.

    Args:
        plan: To be tried.
        problem: As for `simulate`.
        trace: Its rate is where the search begins.
        target_ratio: In (0, 1].
        policy: How the system serves.
        cost: Says how long work takes; the problem's when left out.
        runs: Simulations at most.
        tolerance_ratio: The search ends when the two rates are that close.
    """
    setting = Setting.of(plan, problem, policy, cost)
    points: list[RatePoint] = []
    low, high, stride = 0.0, math.inf, 2.0
    rate = trace.rate_rps
    while len(points) < runs and high > low * (1 + tolerance_ratio):
        report = simulate_in(setting, trace.with_rate(rate))
        points.append(RatePoint(rate, report))
        if report.slo_attainment_ratio >= target_ratio:
            low = rate
        else:
            high = rate
        if low > 0 and high < math.inf:
            rate = math.sqrt(low * high)
        else:
            rate = rate * stride if low > 0 else rate / stride
            stride = min(_WIDEST, stride * 2)
    return RateSearch(
        target_ratio, low, high, tuple(sorted(points, key=lambda point: point.rate_rps))
    )
