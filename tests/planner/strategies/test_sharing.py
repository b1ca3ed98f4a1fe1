"""Colocated groups get shares by the linear program, and by capacity."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from thunderserve.control.planner.problem import Problem
from thunderserve.control.planner.strategies.pools import Configuration, Pools
from thunderserve.control.planner.strategies.sharing import shared_plans
from thunderserve.core.plan import Phase

MakeProblem = Callable[..., Problem]


def test_shared_plans_give_every_group_a_share_that_grows_with_its_capacity(
    make_problem: MakeProblem,
) -> None:
    """The first is the linear program's; in the others nobody idles, and shares spread apart."""
    pools = Pools(make_problem(["A40"], ["3090Ti"], rate_rps=0.5))
    placed = tuple(
        (Phase.COLOCATED, design)
        for kind in pools.types
        for design in pools.groups(kind, Configuration(1, 1))
    )

    plans = list(shared_plans(pools, placed, strategy="vllm", seed=0))

    assert plans[0].routes == pools.plan(placed, strategy="vllm", seed=0).routes
    largest = [max(route.weight for route in plan.routes) for plan in plans[1:]]
    assert all(len(plan.routes) == 2 for plan in plans[1:])
    assert largest == sorted(set(largest))
    for plan in plans[1:]:
        assert sum(route.weight for route in plan.routes) == pytest.approx(1.0)
