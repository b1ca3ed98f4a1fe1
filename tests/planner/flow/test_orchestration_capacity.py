"""The flow that serves the most on target, and the one that heeds no capacity at all."""

from __future__ import annotations

import pytest

from thunderserve.control.planner.flow.flow import FlowProblem, Pair, Station
from thunderserve.control.planner.flow.orchestration import solve_flow, solve_uncapacitated
from thunderserve.core.plan import Phase


def test_capacity_is_what_can_be_served_on_target_whatever_arrives() -> None:
    """Of 10 through the good pair and x through the bad one, 90 % are in time at x = 2."""
    stations = (
        Station("good", Phase.COLOCATED, 10.0),
        Station("bad", Phase.COLOCATED, 10.0),
    )
    pairs = (Pair("good", "good", 1.0), Pair("bad", "bad", 0.4))
    for demand in (1e-3, 1e3):
        flow = solve_flow(FlowProblem(demand, stations, pairs, target_ratio=0.9))
        assert flow.rps == pytest.approx((10.0, 2.0), rel=1e-6)
        assert flow.attained_rps == pytest.approx(0.9 * 12, rel=1e-6)
        assert flow.score == pytest.approx(12, rel=2e-3)


def test_capacity_is_zero_when_no_route_is_on_target() -> None:
    stations = (Station("c", Phase.COLOCATED, 10.0),)
    flow = solve_flow(FlowProblem(1.0, stations, (Pair("c", "c", 0.8),), target_ratio=0.9))
    assert flow.served_rps == pytest.approx(0.0, abs=1e-9)


def test_without_capacities_all_flows_through_one_route() -> None:
    """Its groups are asked for several times what they can do, and half of the rest idle."""
    stations = [Station(f"p{i}", Phase.PREFILL, 3.0) for i in range(3)]
    stations += [Station(f"d{i}", Phase.DECODE, 3.0) for i in range(3)]
    pairs = tuple(Pair(f"p{i}", f"d{j}", 0.9 + 0.01 * (i + j)) for i in range(3) for j in range(3))
    problem = FlowProblem(8.0, tuple(stations), pairs)
    collapsed, real = solve_uncapacitated(problem), solve_flow(problem)
    assert [rps > 0 for rps in collapsed.rps].count(True) == 1
    assert collapsed.fullest_ratio == pytest.approx(8 / 3)
    assert [rps > 1e-6 for rps in real.rps].count(True) > 2
    assert real.fullest_ratio <= 1 + 1e-6
    assert real.attained_rps < collapsed.attained_rps
