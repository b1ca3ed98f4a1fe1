"""What happens to a plan when nodes are lost, links change or the workload does."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from thunderserve.control.planner.change import hosts_of, with_links
from thunderserve.control.planner.problem import EngineLimits, Problem
from thunderserve.control.planner.rescheduling import phases
from thunderserve.control.planner.rescheduling.reschedule import reschedule_plan, route_groups
from thunderserve.control.planner.validate import validate
from thunderserve.core.catalogue import catalogue
from thunderserve.core.errors import InvalidArgumentError, NotFoundError, UnavailableError
from thunderserve.core.hardware import GIGABIT_PER_S, Link
from thunderserve.core.model import model_preset
from thunderserve.core.plan import Certificate, Gpu, Group, Phase, Plan, Route, Stage
from thunderserve.core.workload import Workload

if TYPE_CHECKING:
    from collections.abc import Callable

    MakeProblem = Callable[..., Problem]

PROMPTS = Workload.from_means(rate_rps=1.0, prompt_tokens=4000, output_tokens=4)
CHAT = Workload.from_means(rate_rps=1.0, prompt_tokens=1000, output_tokens=100)
KINDS = ("A40", "A6000", "A5000", "3090Ti")
PHASES = {"P": Phase.PREFILL, "D": Phase.DECODE}


def plan_of(problem: Problem, phases: str, pp: int = 1) -> Plan:
    """One group on every node, in these phases, with the routes that suit the problem."""
    groups = tuple(
        Group(f"g{i}", PHASES[letter], 1, pp, tuple(Stage(32 // pp, (g,)) for g in node.gpus))
        for i, (node, letter) in enumerate(zip(problem.cluster.nodes, phases, strict=True))
    )
    return Plan(
        *(0, "thunderserve", 3, problem.model.name, groups, route_groups(problem, groups)),
        certificate=Certificate("bound", 1.0, 2.0),
    )


def test_groups_on_lost_nodes_drop_out(make_problem: MakeProblem) -> None:
    problem = make_problem(*[["A40"]] * 4, workload=CHAT, rate_rps=1.0)
    plan = plan_of(problem, "PDDD")

    found = reschedule_plan(problem, plan, lost=["n3"])

    assert found.gone == ("g3",)
    assert [g.stages for g in found.plan.groups] == [g.stages for g in plan.groups[:3]]
    assert found.plan.reason == "n3 lost: g3 gone; routes alone are new"
    assert found.plan.certificate is None, "it spoke of another fleet"
    left = replace(problem, cluster=hosts_of(found.plan, catalogue("paper_table1"), Link(5e9)))
    assert validate(found.plan, left) == ()


def test_a_phase_that_is_lost_is_taken_over(make_problem: MakeProblem) -> None:
    problem = make_problem(["A40"], ["A40"], ["3090Ti"], workload=CHAT, rate_rps=1.0)
    found = reschedule_plan(problem, plan_of(problem, "PPD"), lost=["n2"])

    assert [flip.after for flip in found.flips] == [Phase.DECODE]
    assert (found.kept_rps, found.routed_rps) == (0.0, 0.0)
    assert found.goodput_rps > 0
    flipped = found.flips[0].group
    assert found.plan.reason == f"n2 lost: g2 gone; {flipped} flips PREFILL -> DECODE"


def test_flips_say_what_they_gain(make_problem: MakeProblem) -> None:
    problem = make_problem(*[["A40"]] * 4, workload=PROMPTS, rate_rps=50.0)
    found = reschedule_plan(problem, plan_of(problem, "PDDD"))
    assert {(flip.before, flip.after) for flip in found.flips} == {(Phase.DECODE, Phase.PREFILL)}
    assert found.goodput_rps > 1.5 * found.routed_rps
    assert found.plan.predicted is not None
    assert found.plan.predicted.goodput_rps == pytest.approx(found.goodput_rps, rel=0.15)


def test_groups_of_too_many_stages_are_named_and_keep_their_phase(
    make_problem: MakeProblem,
) -> None:
    nodes = [["A40", "A40"]] * 3
    problem = make_problem(*nodes, workload=PROMPTS, rate_rps=50.0)
    plan = plan_of(problem, "PDD", pp=2)
    found = reschedule_plan(problem, plan)
    assert (found.flips, found.fixed) == ((), ("g0", "g1", "g2"))
    able = replace(problem, engine=EngineLimits(flip_max_pp=2))
    found = reschedule_plan(able, plan)
    assert (len(found.flips), found.fixed) == (1, ())


def test_routes_leave_a_link_that_became_slow(make_problem: MakeProblem) -> None:
    problem = make_problem(["A40"], ["A40"], ["A40"], ["A40"], workload=CHAT, rate_rps=2.0)
    plan = plan_of(problem, "PPDD")
    slow = Link(0.05 * GIGABIT_PER_S, 1e-4)
    cluster = with_links(problem.cluster, [("n0", "n2", slow), ("n3", "n1", slow)])

    found = reschedule_plan(replace(problem, cluster=cluster), plan)

    assert {(route.prefill, route.decode) for route in plan.routes} > {("g0", "g2"), ("g1", "g3")}
    assert not found.flips
    assert {(r.prefill, r.decode) for r in found.plan.routes} == {("g0", "g3"), ("g1", "g2")}
    assert found.kept_rps < 0.8 * found.routed_rps


def test_measured_links_replace_those_of_the_same_pair(make_problem: MakeProblem) -> None:
    cluster = make_problem(["A40"], ["A40"], ["A40"]).cluster
    first = with_links(cluster, [("n0", "n1", Link(1.0)), ("n1", "n2", Link(2.0))])
    anew = with_links(first, [("n1", "n0", Link(3.0))])
    assert anew.link("n0", "n1") == Link(3.0)
    assert anew.link("n1", "n2") == Link(2.0)
    assert len(anew.links) == 2


@settings(derandomize=True, deadline=None, max_examples=25)
@given(
    kinds=st.lists(st.sampled_from(KINDS), min_size=2, max_size=5),
    data=st.data(),
)
def test_nothing_is_lost_by_rescheduling(
    kinds: list[str], data: st.DataObject, make_problem: MakeProblem
) -> None:
    """Routes anew serve no fewer in time than the old ones, and flips no fewer than none."""
    letters = data.draw(st.lists(st.sampled_from("PD"), min_size=len(kinds), max_size=len(kinds)))
    rate_rps = data.draw(st.sampled_from([0.3, 3.0, 30.0]))
    gbit_per_s = data.draw(st.sampled_from([0.1, 1.0, 40.0]))
    workload = data.draw(st.sampled_from([PROMPTS, CHAT]))
    calm = make_problem(*[[kind] for kind in kinds], workload=workload, rate_rps=rate_rps)
    busy = replace(
        make_problem(
            *[[kind] for kind in kinds],
            workload=workload,
            rate_rps=rate_rps,
            gbit_per_s=gbit_per_s,
        ),
        engine=EngineLimits(),
    )
    plan = plan_of(calm, "".join(letters))
    try:
        found = reschedule_plan(busy, plan)
    except UnavailableError:
        return
    assert found.kept_rps <= found.routed_rps * (1 + 1e-3) + 1e-9
    assert found.routed_rps <= found.goodput_rps * (1 + 1e-6) + 1e-9
    assert [(g.id, g.tp, g.pp, g.stages) for g in found.plan.groups] == [
        (g.id, g.tp, g.pp, g.stages) for g in plan.groups
    ]


def test_reschedule_refuses_what_it_cannot_answer(make_problem: MakeProblem) -> None:
    problem = make_problem(["A40"], ["A40"], workload=CHAT)
    plan = plan_of(problem, "PD")
    with pytest.raises(NotFoundError, match="'n7' is not in the plan's cluster"):
        reschedule_plan(problem, plan, lost=["n7"])
    with pytest.raises(UnavailableError, match="nothing left to serve with after losing n0"):
        reschedule_plan(problem, plan, lost=["n0"])
    with pytest.raises(UnavailableError, match="every node is lost"):
        reschedule_plan(problem, plan, lost=["n0", "n1"])
    other = make_problem(["A40"], ["A6000"], workload=CHAT)
    with pytest.raises(InvalidArgumentError, match="another cluster: it has A40 as GPU n1/0"):
        reschedule_plan(other, plan)
    with pytest.raises(InvalidArgumentError, match="is for llama-7b, not for llama-30b"):
        reschedule_plan(replace(problem, model=model_preset("llama-30b")), plan)


def test_a_plan_whose_layers_are_another_model_s_is_refused(make_problem: MakeProblem) -> None:
    problem = make_problem(["A40"], workload=CHAT)
    short = Group("g0", Phase.COLOCATED, 1, 1, (Stage(31, (Gpu("n0/0", "A40"),)),))
    plan = Plan(0, "mine", 0, problem.model.name, (short,), (Route("g0", "g0", 1.0),))
    with pytest.raises(InvalidArgumentError, match="holds 31 layers; llama-7b has 32"):
        reschedule_plan(problem, plan)


def test_engines_keep_the_chunks_that_they_were_started_with(make_problem: MakeProblem) -> None:
    problem = make_problem(["A40"], ["A40"], workload=PROMPTS)
    plan = replace(plan_of(problem, "PD"), chunk_tokens=512)
    small = replace(problem, engine=EngineLimits(chunk_tokens=(512,)))
    found = reschedule_plan(problem, plan)
    assert found.plan.chunk_tokens == 512
    assert found.plan.predicted == reschedule_plan(small, plan).plan.predicted


def test_a_gain_that_its_flips_are_not_worth_is_left(
    make_problem: MakeProblem, monkeypatch: pytest.MonkeyPatch
) -> None:
    problem = make_problem(*[["A40"]] * 4, workload=PROMPTS, rate_rps=50.0)
    plan = plan_of(problem, "PDDD")
    assert reschedule_plan(problem, plan).flips
    monkeypatch.setattr(phases, "FLIP_COST", 1.0)
    assert not reschedule_plan(problem, plan).flips


def test_no_room_to_spare_is_worth_a_request_in_time(
    make_problem: MakeProblem, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even where room counts a thousand times as much as it does."""
    monkeypatch.setattr(phases, "HEADROOM", 1000 * phases.HEADROOM)
    for rate_rps in (0.5, 1.0, 2.0, 4.0):
        for workload in (PROMPTS, CHAT):
            nodes = (["A40"], ["3090Ti"], ["A5000"], ["A6000"])
            problem = make_problem(*nodes, workload=workload, rate_rps=rate_rps, gbit_per_s=2.0)
            for letters in ("PPDD", "DPDP", "PDDD"):
                found = reschedule_plan(problem, plan_of(problem, letters))
                assert found.goodput_rps >= found.routed_rps * (1 - 1e-6)
