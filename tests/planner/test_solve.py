"""Plans are valid, reproducible, and as good as trying everything where that is possible."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from every_plan import every_plan
from hypothesis import given, settings
from hypothesis import strategies as st

from thunderserve.control.planner.design import design_of
from thunderserve.control.planner.flow.evaluate import Evaluator, Seat
from thunderserve.control.planner.presets import CLUSTERS, cluster_preset
from thunderserve.control.planner.problem import EngineLimits, Problem
from thunderserve.control.planner.rescheduling.reschedule import route_groups
from thunderserve.control.planner.solve import Ending, SearchSettings, solve, solve_reported
from thunderserve.control.planner.validate import validate
from thunderserve.core.errors import InvalidArgumentError
from thunderserve.core.model import model_preset
from thunderserve.core.plan import Phase
from thunderserve.core.slo import Slo
from thunderserve.core.workload import POISSON, workload_preset

if TYPE_CHECKING:
    from collections.abc import Callable

    MakeProblem = Callable[..., Problem]
    Clock = Callable[[], float]

QUICK = SearchSettings(starts=2, neighbours=4, samples=20, tenure=10, patience=4)


@pytest.mark.parametrize(
    ("nodes", "engine", "rate_rps"),
    [
        ((["A40"] * 4,), EngineLimits(), 9.0),
        ((["A40", "A40", "3090Ti", "3090Ti"],), EngineLimits(), 9.0),
        ((["A40"] * 2, ["3090Ti"] * 2), EngineLimits(max_nodes=2), 9.0),
        ((["A40"] * 2, ["3090Ti"] * 3), EngineLimits(), 20.0),
    ],
    ids=["4-equal", "4-mixed", "2+2-across", "2+3"],
)
def test_search_finds_what_trying_everything_finds(
    make_problem: MakeProblem,
    still_clock: Clock,
    nodes: tuple[list[str], ...],
    engine: EngineLimits,
    rate_rps: float,
) -> None:
    problem = make_problem(*nodes, engine=engine, rate_rps=rate_rps)
    plan = solve(problem, seed=1, clock=still_clock)
    assert validate(plan, problem) == ()
    seats = [Seat(group.id, group.phase, design_of(group)) for group in plan.groups]
    most = max(found.score for found in every_plan(problem))
    assert Evaluator(problem).assess(seats).score == pytest.approx(most, rel=1e-6)


def can_serve(problem: Problem) -> bool:
    """As many nodes as a group may span hold the model, with room to spare."""
    memory = {kind.name: kind.memory_bytes for kind in problem.cluster.types}
    nodes = sorted(sum(memory[gpu.type] for gpu in node.gpus) for node in problem.cluster.nodes)
    together = sum(nodes[-problem.engine.max_nodes :])
    return together * 0.8 > problem.model.weight_bytes


@given(
    nodes=st.lists(
        st.lists(st.sampled_from(["A40", "3090Ti", "A5000"]), min_size=1, max_size=4),
        min_size=1,
        max_size=2,
    ),
    rate_rps=st.sampled_from([0.1, 5.0, 200.0]),
    max_nodes=st.integers(1, 2),
    unequal_pp=st.booleans(),
    model=st.sampled_from(["llama-7b", "opt-13b"]),
    seed=st.integers(0, 2**64),
)
@settings(max_examples=8, deadline=None, derandomize=True)
def test_every_plan_is_valid(  # noqa: PLR0917 - one argument for each thing that varies
    make_problem: MakeProblem,
    nodes: list[list[str]],
    rate_rps: float,
    max_nodes: int,
    unequal_pp: bool,  # noqa: FBT001 - drawn
    model: str,
    seed: int,
) -> None:
    """Each GPU at most once, weights and layers fit, routes are servable, shares sum to 1."""
    engine = EngineLimits(max_nodes=max_nodes, unequal_pp=unequal_pp)
    problem = make_problem(*nodes, rate_rps=rate_rps, model=model, engine=engine)
    if not can_serve(problem):
        with pytest.raises(InvalidArgumentError, match="holds"):
            solve(problem, seed=seed, clock=lambda: 0.0, settings=QUICK)
        return
    plan = solve(problem, seed=seed, clock=lambda: 0.0, settings=QUICK)
    found = [violation for violation in validate(plan, problem) if plan.routes]
    assert found == []
    assert plan.predicted is not None
    assert 0 <= plan.predicted.slo_attainment_ratio <= 1
    assert plan.predicted.goodput_rps <= rate_rps * (1 + 1e-6)


def test_same_seed_gives_the_same_plan(make_problem: MakeProblem, still_clock: Clock) -> None:
    problem = make_problem(["A40"] * 4, ["3090Ti"] * 4, rate_rps=15.0)
    first = solve(problem, seed=5, clock=still_clock, settings=QUICK)
    assert solve(problem, seed=5, clock=still_clock, settings=QUICK) == first
    assert first.seed == 5


@pytest.mark.parametrize("workload", ["azure-conv", "azure-code"])
def test_plan_file_does_not_depend_on_the_run(workload: str) -> None:
    """Not on the order of sets and not on speed: each run hashes strings in its own way."""
    script = f"""
import itertools, json
from thunderserve.control.planner.presets import cluster_preset
from thunderserve.control.planner.problem import EngineLimits, Problem
from thunderserve.control.planner.solve import Ending, SearchSettings, solve, solve_reported
from thunderserve.core.model import model_preset
from thunderserve.core.plan_file import plan_to_mapping
from thunderserve.core.slo import Slo
from thunderserve.core.workload import workload_preset
problem = Problem(
    cluster_preset("paper-cloud-32"), model_preset("llama-30b"), workload_preset("{workload}"),
    Slo(3.0, 0.15),
)
ticks = itertools.count()
settings = SearchSettings(starts=1, neighbours=4, samples=10, patience=2)
plan = solve(problem, seed=3, clock=lambda: next(ticks) * 1e-6, settings=settings)
print(json.dumps(plan_to_mapping(plan)))
"""
    printed = {
        subprocess.run(
            [sys.executable, "-c", script],
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            capture_output=True,
            check=True,
        ).stdout
        for hash_seed in ("1", "2")
    }
    assert len(printed) == 1


def test_more_evaluations_are_never_worse(make_problem: MakeProblem, still_clock: Clock) -> None:
    problem = make_problem(["A40"] * 4, ["3090Ti"] * 4, ["A40", "A5000"], rate_rps=40.0)
    found = [
        solve_reported(
            problem, seed=2, clock=still_clock, settings=replace(QUICK, evaluations=most)
        ).report
        for most in (1, 5, 10, 20, 40)
    ]
    scores = [report.score for report in found]
    assert scores == sorted(scores)
    assert found[0].ending is Ending.EVALUATIONS
    assert found[0].evaluations < found[-1].evaluations


def test_progress_rises_to_the_plan_s_score(make_problem: MakeProblem, still_clock: Clock) -> None:
    problem = make_problem(["A40"] * 4, ["3090Ti"] * 4, rate_rps=40.0)
    found = solve_reported(problem, clock=still_clock, settings=QUICK)
    evaluations, scores = zip(*found.report.progress, strict=True)
    assert list(evaluations) == sorted(set(evaluations))
    assert list(scores) == sorted(set(scores))
    assert scores[-1] == pytest.approx(found.report.score, rel=1e-4)
    assert found.plan.search_evaluations == found.report.evaluations


def test_flows_stay_within_what_groups_can_do(
    make_problem: MakeProblem, still_clock: Clock
) -> None:
    problem = make_problem(["A40"] * 4, ["3090Ti"] * 4, rate_rps=200.0)
    plan = solve(problem, clock=still_clock, settings=QUICK)
    seats = [Seat(group.id, group.phase, design_of(group)) for group in plan.groups]
    found = Evaluator(problem).assess(seats)
    for station in found.problem.stations:
        assert found.load_rps(station.id) <= station.capacity_rps * (1 + 1e-6)


def test_solve_refuses_a_model_that_no_group_holds(
    make_problem: MakeProblem, still_clock: Clock
) -> None:
    problem = make_problem(["3090Ti"] * 2, model="llama-30b")
    with pytest.raises(InvalidArgumentError, match=r"65\.1 GB, the 2 GPUs have 48\.0 GB"):
        solve(problem, clock=still_clock)


def test_a_lone_gpu_serves_when_it_may_do_both(
    make_problem: MakeProblem, still_clock: Clock
) -> None:
    engine = EngineLimits(phases=(Phase.COLOCATED, Phase.PREFILL, Phase.DECODE))
    problem = make_problem(["A40"], engine=engine, rate_rps=0.5)
    plan = solve(problem, clock=still_clock)
    assert [group.phase for group in plan.groups] == [Phase.COLOCATED]
    assert [(route.prefill, route.decode, route.weight) for route in plan.routes] == [
        ("g0", "g0", 1.0)
    ]


def test_slow_links_keep_requests_within_a_node(
    make_problem: MakeProblem, still_clock: Clock
) -> None:
    """At 0.2 Gbit/s nothing can cross, so each node prefills for itself."""
    problem = make_problem(["A40"] * 2, ["A40"] * 2, gbit_per_s=0.2, rate_rps=20.0)
    plan = solve(problem, clock=still_clock)
    nodes = {group.id: group.gpus[0].node for group in plan.groups}
    local = sum(r.weight for r in plan.routes if nodes[r.prefill] == nodes[r.decode])
    assert local > 0.99


@pytest.mark.parametrize("cluster", CLUSTERS)
@pytest.mark.parametrize("workload", ["azure-conv", "azure-code"])
def test_the_paper_s_clusters_are_planned(still_clock: Clock, cluster: str, workload: str) -> None:
    problem = Problem(
        cluster_preset(cluster),
        model_preset("llama-30b"),
        replace(workload_preset(workload), arrivals=POISSON),
        Slo(ttft_s=3.0, tpot_s=0.2),
    )
    plan = solve(problem, clock=still_clock, settings=QUICK)
    assert validate(plan, problem) == ()
    assert plan.predicted is not None
    assert plan.predicted.slo_attainment_ratio > 0.8
    assert plan.predicted.usd_per_hour <= problem.cluster.usd_per_hour + 1e-9


def test_a_plan_s_routes_are_those_of_its_groups(
    make_problem: MakeProblem, still_clock: Clock
) -> None:
    """Solving the flow anew over the plan's groups gives the plan's weights."""
    problem = make_problem(["A40"] * 4, ["3090Ti"] * 4, rate_rps=15.0)
    plan = solve(problem, clock=still_clock, settings=QUICK)
    again = {(r.prefill, r.decode): r.weight for r in route_groups(problem, plan.groups)}
    assert again == pytest.approx({(r.prefill, r.decode): r.weight for r in plan.routes})


def test_a_looser_bound_never_attains_less(make_problem: MakeProblem, still_clock: Clock) -> None:
    problem = make_problem(["A40"] * 2, ["3090Ti"] * 2, rate_rps=20.0)
    attained = []
    for scale in (0.5, 1.0, 2.0):
        scaled = replace(problem, slo=problem.slo.scaled(scale))
        predicted = solve(scaled, clock=still_clock, settings=QUICK).predicted
        assert predicted is not None
        attained.append(predicted.slo_attainment_ratio)
    assert attained == sorted(attained)
