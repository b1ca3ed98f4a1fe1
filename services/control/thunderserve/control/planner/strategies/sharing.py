"""Shares of colocated groups, when the linear program's may be wrong about them.

The linear program sends nothing to a group that the cost model believes to be too slow; a fleet
that sends some may serve more. A baseline gets whichever serves most when simulated.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from thunderserve.core.plan import Phase, Route

if TYPE_CHECKING:
    from collections.abc import Iterator

    from thunderserve.control.planner.strategies.pools import Placed, Pools
    from thunderserve.core.plan import Plan

__all__ = ["shared_plans"]

_POWERS = (1.0, 1.5, 2.0, 3.0)
"""Of a group's capacity: the higher, the more goes to the fastest."""


def shared_plans(pools: Pools, placed: Placed, *, strategy: str, seed: int) -> Iterator[Plan]:
    """The plan of colocated groups with the linear program's shares, and with shares by capacity.

    Raises:
        InvalidArgumentError: There are no groups, as the model fits nowhere.
    """
    yield pools.plan(placed, strategy=strategy, seed=seed)
    figures = pools.evaluator.shapes.figures
    able = tuple(
        sorted(
            (each for each in placed if figures(each[1], Phase.COLOCATED).capacity_rps > 0),
            key=lambda each: -figures(each[1], Phase.COLOCATED).capacity_rps,
        )
    )
    if not able:
        return
    whole = pools.plan(able, strategy=strategy, seed=seed, keep_idle=True)
    rates = [figures(design, Phase.COLOCATED).capacity_rps for _, design in able]
    for power in _POWERS:
        total = sum(rate**power for rate in rates)
        routes = tuple(
            Route(group.id, group.id, rate**power / total)
            for group, rate in zip(whole.groups, rates, strict=True)
        )
        yield replace(whole, routes=routes, predicted=None)
