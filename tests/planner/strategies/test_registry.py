"""Every strategy makes a plan that the same validator and simulator accept."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from thunderserve.control.planner.simulator import simulate
from thunderserve.control.planner.strategies.registry import (
    STRATEGIES,
    strategies_for,
    strategy_named,
)
from thunderserve.control.planner.validate import validate
from thunderserve.core.errors import InvalidArgumentError
from thunderserve.core.plan import Phase
from thunderserve.core.request import WireMode
from thunderserve.core.trace import sample_trace

if TYPE_CHECKING:
    from collections.abc import Callable

    from thunderserve.control.planner.problem import Problem
    from thunderserve.core.plan import Plan

    Planned = Callable[[str, Problem], Plan]

GENERAL = [name for name in STRATEGIES if name != "published"]


@pytest.mark.parametrize("name", GENERAL)
@pytest.mark.parametrize("cluster", ["mixed", "equal"])
def test_plan_validates_and_serves(
    name: str, cluster: str, request: pytest.FixtureRequest, planned: Planned
) -> None:
    problem: Problem = request.getfixturevalue(cluster)
    strategy = strategy_named(name)
    plan = planned(name, problem)
    posed = strategy.pose(problem)
    assert validate(plan, posed) == ()
    assert plan.strategy == name
    trace = sample_trace(problem.workload.with_rate(0.5), requests=60)
    report = simulate(plan, posed, trace, policy=strategy.policies[0])
    assert report.finished == report.requests
    assert report.slo_attainment_ratio > 0.9


@pytest.mark.parametrize("name", GENERAL)
def test_plan_is_the_same_when_the_seed_is(name: str, equal: Problem, planned: Planned) -> None:
    assert strategy_named(name).plan(equal, seed=0, clock=lambda: 0.0) == planned(name, equal)


def test_every_strategy_names_its_source_and_departures() -> None:
    for name, strategy in STRATEGIES.items():
        assert strategy.name == name
        assert strategy.source
        assert bool(strategy.departures) == (name != "thunderserve")


def test_pose_gives_each_strategy_what_its_system_can_do(mixed: Problem) -> None:
    together, raw = (Phase.COLOCATED,), WireMode.RAW16
    for name in ("hexgen", "vllm", "helix", "melange"):
        assert strategy_named(name).pose(mixed).engine.phases == together
    for name in ("distserve", "splitwise"):
        assert strategy_named(name).pose(mixed).wire_mode is raw
    assert strategy_named("thunderserve").pose(mixed).wire_mode is mixed.wire_mode
    assert strategy_named("helix").pose(mixed).engine.max_nodes == len(mixed.cluster.nodes)
    assert strategy_named("vllm").pose(mixed).engine.max_nodes == 1


def test_published_is_compared_only_where_there_is_such_a_plan(mixed: Problem) -> None:
    assert "published" not in strategies_for(mixed)
    with pytest.raises(InvalidArgumentError, match="was published"):
        strategy_named("published").plan(mixed, clock=lambda: 0.0)


def test_unknown_strategy_is_refused_with_those_there_are() -> None:
    with pytest.raises(InvalidArgumentError, match="no strategy 'orca'; there are thunderserve, "):
        strategy_named("orca")


def test_plan_is_for_a_lower_target_when_this_one_is_out_of_reach(
    mixed: Problem, planned: Planned
) -> None:
    asked: list[float] = []
    plan = planned("vllm", mixed)

    def search(problem: Problem, _seed: int, _clock: Callable[[], float]) -> Plan:
        asked.append(problem.target_ratio)
        return plan if problem.target_ratio < 0.5 else replace(plan, routes=())

    found = replace(strategy_named("vllm"), search=search).plan(mixed, clock=lambda: 0.0)
    assert found.routes
    assert asked == pytest.approx([0.9, 0.675, 0.45])
