"""ThunderServe: this planner, as it is."""

from __future__ import annotations

from typing import TYPE_CHECKING

from thunderserve.control.planner.solve import solve

if TYPE_CHECKING:
    from collections.abc import Callable

    from thunderserve.control.planner.problem import Problem
    from thunderserve.core.plan import Plan

__all__ = ["plan_thunderserve"]


def plan_thunderserve(problem: Problem, seed: int, clock: Callable[[], float]) -> Plan:
    """What `thunderserve plan` makes."""
    return solve(problem, seed=seed, clock=clock)
