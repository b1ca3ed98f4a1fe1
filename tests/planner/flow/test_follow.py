"""Kept routes serve their shares, as far as groups and ports reach."""

from __future__ import annotations

import pytest

from thunderserve.control.planner.flow.flow import FlowProblem, Pair, Station
from thunderserve.control.planner.flow.follow import follow_routes
from thunderserve.core.plan import Phase, Route

PREFILL = Station("p", Phase.PREFILL, 10.0)
FAST = Station("fast", Phase.DECODE, 8.0)
SLOW = Station("slow", Phase.DECODE, 2.0, ((0.5, 0.5),))
ROUTES = (Route("p", "fast", 0.5), Route("p", "slow", 0.5))


def posed(demand_rps: float, ports: dict[str, float] | None = None) -> FlowProblem:
    wire = (("wire", 2.0),)
    pairs = (Pair("p", "fast", 0.8, wire if ports else ()), Pair("p", "slow"))
    return FlowProblem(demand_rps, (PREFILL, FAST, SLOW), pairs, ports or {})


def test_kept_routes_follow_their_weights_and_lose_as_the_groups_do() -> None:
    flow = follow_routes(posed(3.0), ROUTES)
    assert flow.rps == (1.5, 1.5)
    assert flow.attained_rps == pytest.approx(0.8 * 1.5 + 1.5 - 0.25)
    assert flow.fullest_ratio == pytest.approx(0.75)


def test_a_full_group_serves_its_capacity_and_no_other_gains() -> None:
    assert follow_routes(posed(6.0), ROUTES).rps == pytest.approx((3.0, 2.0))


def test_a_full_port_cuts_the_routes_through_it() -> None:
    assert follow_routes(posed(3.0, {"wire": 1.0}), ROUTES).rps == pytest.approx((0.5, 1.5))


def test_the_share_of_a_lost_route_goes_to_the_others() -> None:
    assert follow_routes(posed(1.0), (*ROUTES, Route("p", "gone", 0.0))).rps == (0.5, 0.5)
    assert follow_routes(posed(1.0), (Route("p", "fast", 0.2),)).rps == (1.0, 0.0)
    assert follow_routes(posed(1.0), (Route("p", "gone", 1.0),)).rps == (0.0, 0.0)


def test_a_group_that_can_do_nothing_serves_nothing() -> None:
    none = FlowProblem(1.0, (PREFILL, Station("d", Phase.DECODE, 0.0)), (Pair("p", "d"),))
    assert follow_routes(none, (Route("p", "d", 1.0),)).attained_rps == 0.0
