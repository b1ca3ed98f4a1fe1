"""The published plans are what the paper's table says, and valid."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest

from thunderserve.control.planner.presets import cluster_preset
from thunderserve.control.planner.problem import Objective, Problem
from thunderserve.control.planner.simulator import simulate
from thunderserve.control.planner.strategies.registry import strategies_for, strategy_named
from thunderserve.control.planner.validate import validate
from thunderserve.core.model import model_preset
from thunderserve.core.plan import Phase
from thunderserve.core.slo import Slo
from thunderserve.core.trace import sample_trace
from thunderserve.core.workload import workload_preset


def problem_of(workload: str) -> Problem:
    return Problem(
        cluster_preset("paper-cloud-32"),
        model_preset("llama-30b"),
        workload_preset(workload),
        Slo(3.0, 0.15),
        objective=Objective.CAPACITY,
    )


@pytest.mark.parametrize(
    ("workload", "prefills", "decodes"), [("azure-code", 8, 4), ("azure-conv", 4, 8)]
)
def test_published_plan_has_its_replicas_and_all_gpus(
    workload: str, prefills: int, decodes: int
) -> None:
    problem = problem_of(workload)
    published = strategy_named("published")
    plan = published.plan(problem, clock=lambda: 0.0)
    phases = Counter(group.phase for group in plan.groups)
    assert phases == {Phase.PREFILL: prefills, Phase.DECODE: decodes}
    types = Counter(gpu.type for group in plan.groups for gpu in group.gpus)
    assert types == {"A40": 8, "A6000": 8, "A5000": 8, "3090Ti": 8}
    assert validate(plan, published.pose(problem)) == ()


def test_published_groups_of_two_types_span_two_hosts() -> None:
    problem = problem_of("azure-conv")
    published = strategy_named("published")
    plan = published.plan(problem, clock=lambda: 0.0)
    mixed = [group for group in plan.groups if len({gpu.type for gpu in group.gpus}) > 1]
    assert [(group.tp, group.pp) for group in mixed] == [(2, 2), (2, 2)]
    posed = published.pose(problem)
    narrow = replace(posed, engine=replace(posed.engine, max_nodes=1))
    assert {each.where for each in validate(plan, narrow)} == {group.id for group in mixed}


def test_published_plan_serves_when_few_requests_come() -> None:
    problem = problem_of("azure-conv")
    published = strategy_named("published")
    plan = published.plan(problem, clock=lambda: 0.0)
    trace = sample_trace(problem.workload.with_rate(0.5), requests=100)
    report = simulate(plan, published.pose(problem), trace, policy=published.policies[0])
    assert report.finished == 100
    assert report.slo_attainment_ratio > 0.8


def test_published_applies_to_its_workloads_and_gpus_only() -> None:
    problem = problem_of("azure-conv")
    assert "published" in strategies_for(problem)
    other = replace(problem, workload=replace(problem.workload, name="other"))
    inhouse = replace(problem, cluster=cluster_preset("paper-inhouse-8xa100"))
    assert "published" not in strategies_for(other)
    assert "published" not in strategies_for(inhouse)
