"""The validator finds every kind of error, also those that a plan's own checks would refuse."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from thunderserve.control.planner.problem import EngineLimits, Problem
from thunderserve.control.planner.validate import validate
from thunderserve.core.plan import Gpu, Group, Phase, Plan, Route, Stage

if TYPE_CHECKING:
    from collections.abc import Callable

    MakeProblem = Callable[..., Problem]

NODES = (["A40"] * 4, ["3090Ti"] * 2)


def group(group_id: str, phase: Phase, *stages: tuple[int, list[str]]) -> Group:
    built = tuple(
        Stage(layers, tuple(Gpu(gpu, "A40" if gpu < "n1" else "3090Ti") for gpu in gpus))
        for layers, gpus in stages
    )
    return Group(group_id, phase, len(built[0].gpus), len(built), built)


PREFILL = group("p", Phase.PREFILL, (32, ["n0/0", "n0/1"]))
DECODE = group("d", Phase.DECODE, (20, ["n0/2"]), (12, ["n0/3"]))
SPARE = group("s", Phase.DECODE, (32, ["n1/0"]))
ROUTES = (Route("p", "d", 0.5), Route("p", "s", 0.5))
PLAN = Plan(0, "hand", 0, "llama-7b", (PREFILL, DECODE, SPARE), ROUTES)


def forced(plan: Plan, **changes: Any) -> Plan:
    """The plan with fields that its constructor would refuse."""
    copy = replace(plan)
    for name, value in changes.items():
        object.__setattr__(copy, name, value)
    return copy


def rules(plan: Plan, problem: Problem) -> set[str]:
    return {violation.rule for violation in validate(plan, problem)}


def with_group(changed: Group) -> Plan:
    groups = tuple(changed if group.id == changed.id else group for group in PLAN.groups)
    return forced(PLAN, groups=groups)


def test_a_good_plan_has_no_violations(make_problem: MakeProblem) -> None:
    assert validate(PLAN, make_problem(*NODES)) == ()


@pytest.mark.parametrize(
    ("plan", "rule", "where", "words"),
    [
        (
            with_group(group("s", Phase.DECODE, (32, ["n0/0"]))),
            "gpu-twice", "n0/0", "n0/0 is in 2 places",
        ),
        (
            with_group(group("s", Phase.DECODE, (32, ["n7/0"]))),
            "gpu-unknown", "n7/0", "which the cluster lacks",
        ),
        (
            with_group(Group("s", Phase.DECODE, 1, 1, (Stage(32, (Gpu("n1/0", "A40"),)),))),
            "gpu-type", "n1/0", "planned as A40, but is 3090Ti",
        ),
        (
            with_group(group("s", Phase.DECODE, (31, ["n1/0"]))),
            "layers", "s", "holds 31 layers; llama-7b has 32",
        ),
        (
            with_group(group("p", Phase.PREFILL, (32, ["n0/0", "n1/1"]))),
            "tp-across-nodes", "p", "stage on n0 and n1",
        ),
        (
            with_group(group("d", Phase.DECODE, (20, ["n0/2"]), (12, ["n1/1"]))),
            "nodes", "d", "spans 2 nodes",
        ),
        (
            forced(PLAN, routes=(Route("p", "d", 0.5), Route("p", "s", 0.4))),
            "weights", "routes", "sum to 0.9",
        ),
        (forced(PLAN, model="opt-13b"), "model", "plan", "for opt-13b, not for llama-7b"),
        (forced(PLAN, routes=()), "weights", "routes", "serves nobody"),
        (
            forced(PLAN, routes=(Route("p", "x", 1.0),)),
            "route-end", "p -> x", "not there",
        ),
        (
            forced(PLAN, routes=(Route("d", "s", 1.0),)),
            "route-phases", "d -> s", "joins DECODE to DECODE",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) and " " not in value else "",
)  # fmt: skip
def test_validate_names_the_rule_the_place_and_the_reason(
    make_problem: MakeProblem, plan: Plan, rule: str, where: str, words: str
) -> None:
    found = [each for each in validate(plan, make_problem(*NODES)) if each.rule == rule]
    assert [each.where for each in found] == [where]
    assert words in found[0].reason


def test_weights_that_exceed_memory_are_found_gpu_by_gpu(make_problem: MakeProblem) -> None:
    """30 of LLaMA-30B's 60 layers take 32 GB: an A40 has room, a 3090Ti has not."""
    problem = make_problem(*NODES, model="llama-30b", engine=EngineLimits(max_nodes=2))
    halves = group("h", Phase.PREFILL, (30, ["n0/0"]), (30, ["n1/0"]))
    later = group("d", Phase.DECODE, (60, ["n0/2", "n0/3"]))
    plan = Plan(0, "hand", 0, "llama-30b", (halves, later), (Route("h", "d", 1.0),))
    found = validate(plan, problem)
    assert [(each.rule, each.where) for each in found] == [("memory", "n1/0")]
    assert "32.5 GB of weights" in found[0].reason
    assert "21.6 GB" in found[0].reason


@pytest.mark.parametrize(
    ("engine", "rule"),
    [
        (EngineLimits(max_tp=1), "tp"),
        (EngineLimits(max_pp=1), "pp"),
        (EngineLimits(phases=(Phase.PREFILL,)), "phase"),
        (EngineLimits(unequal_pp=False), "route-engine"),
        (EngineLimits(unequal_tp=False), "route-engine"),
    ],
)
def test_what_the_engine_cannot_do_is_found(
    make_problem: MakeProblem, engine: EngineLimits, rule: str
) -> None:
    assert rules(PLAN, make_problem(*NODES, engine=engine)) == {rule}


def test_heads_that_gpus_cannot_share_are_found(make_problem: MakeProblem) -> None:
    three = group("p", Phase.PREFILL, (32, ["n0/0", "n0/1", "n0/2"]))
    plan = Plan(0, "hand", 0, "llama-7b", (three, SPARE), (Route("p", "s", 1.0),))
    assert rules(plan, make_problem(*NODES)) == {"tp"}


def test_a_colocated_group_may_be_routed_to_itself(make_problem: MakeProblem) -> None:
    both = replace(SPARE, phase=Phase.COLOCATED)
    plan = Plan(0, "hand", 0, "llama-7b", (both,), (Route("s", "s", 1.0),))
    assert validate(plan, make_problem(*NODES, engine=EngineLimits(phases=tuple(Phase)))) == ()
