"""One plan beside another."""

from __future__ import annotations

from thunderserve.core.plan import Gpu, Group, Phase, Plan, Route, Stage
from thunderserve.core.plan_diff import GroupChange, RouteChange, diff_plans

PREFILL, DECODE = Phase.PREFILL, Phase.DECODE


def plan(phases: dict[str, Phase], *routes: tuple[str, str, float]) -> Plan:
    groups = tuple(
        Group(name, phase, 1, 1, (Stage(8, (Gpu(f"n/{place}", "A40"),)),))
        for place, (name, phase) in enumerate(phases.items())
    )
    return Plan(1, "thunderserve", 0, "m", groups, tuple(Route(*route) for route in routes))


BEFORE = plan({"a": PREFILL, "b": DECODE, "c": DECODE}, ("a", "b", 0.4), ("a", "c", 0.6))


def test_diff_is_empty_when_the_plans_serve_alike() -> None:
    """Order and rounding do not count."""
    other = plan({"a": PREFILL, "b": DECODE, "c": DECODE}, ("a", "c", 0.60001), ("a", "b", 0.39999))

    diff = diff_plans(BEFORE, other)

    assert (diff.groups, diff.routes) == ((), ())


def test_diff_names_flips_and_routes_the_largest_change_first() -> None:
    """A route that is gone has weight 0 after."""
    after = plan({"a": PREFILL, "b": DECODE, "c": PREFILL}, ("a", "b", 0.3), ("c", "b", 0.7))

    diff = diff_plans(BEFORE, after)

    assert diff.flips == diff.groups == (GroupChange("c", DECODE, PREFILL),)
    assert diff.routes == (
        RouteChange("c", "b", 0.0, 0.7),
        RouteChange("a", "c", 0.6, 0.0),
        RouteChange("a", "b", 0.4, 0.3),
    )


def test_group_that_comes_is_no_flip_when_the_first_plan_lacks_it() -> None:
    """Nobody changes a phase."""
    diff = diff_plans(plan({"a": PREFILL, "b": DECODE}, ("a", "b", 1.0)), BEFORE)

    assert diff.groups == (GroupChange("c", None, DECODE),)
    assert diff.flips == ()
