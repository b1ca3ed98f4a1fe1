"""Light re-scheduling moves phases and routes, and nothing else."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from typing import TYPE_CHECKING

import pytest

from thunderserve.control.planner.flow.evaluate import Evaluator
from thunderserve.control.planner.problem import EngineLimits, Problem
from thunderserve.control.planner.rescheduling.reschedule import reschedule, route_groups
from thunderserve.core.plan import Gpu, Group, Phase, Stage
from thunderserve.core.workload import Workload

if TYPE_CHECKING:
    from collections.abc import Callable

    MakeProblem = Callable[..., Problem]

PROMPTS = Workload.from_means(rate_rps=1.0, prompt_tokens=4000, output_tokens=4)
ANSWERS = Workload.from_means(rate_rps=1.0, prompt_tokens=50, output_tokens=500)
CHAT = Workload.from_means(rate_rps=1.0, prompt_tokens=500, output_tokens=50)


def groups(kinds: list[str], phases: str, pp: int = 1) -> list[Group]:
    """One group of `pp` GPUs on each node, 32 layers."""
    made = []
    for i, (kind, letter) in enumerate(zip(kinds, phases, strict=True)):
        phase = {"P": Phase.PREFILL, "D": Phase.DECODE, "C": Phase.COLOCATED}[letter]
        stages = tuple(Stage(32 // pp, (Gpu(f"n{i}/{at}", kind),)) for at in range(pp))
        made.append(Group(f"g{i}", phase, 1, pp, stages))
    return made


def letters(flipped: tuple[Group, ...]) -> str:
    return "".join(group.phase[0] for group in flipped)


def test_phases_follow_the_workload(make_problem: MakeProblem) -> None:
    nodes = [["A40"]] * 4
    present = groups(["A40"] * 4, "PPDD")
    for workload, phase in ((PROMPTS, "P"), (ANSWERS, "D")):
        problem = make_problem(*nodes, workload=workload, rate_rps=50.0)
        flipped, routes, _ = reschedule(problem, present)
        assert letters(flipped).count(phase) == 3
        assert sum(route.weight for route in routes) == pytest.approx(1.0)


def test_groups_keep_everything_but_their_phase(make_problem: MakeProblem) -> None:
    present = groups(["A40", "3090Ti", "A5000"], "PDD")
    problem = make_problem(["A40"], ["3090Ti"], ["A5000"], workload=PROMPTS, rate_rps=50.0)
    flipped, _, _ = reschedule(problem, present)
    assert letters(flipped) != "PDD"
    assert [(g.id, g.tp, g.pp, g.stages) for g in flipped] == [
        (g.id, g.tp, g.pp, g.stages) for g in present
    ]


def test_the_fewest_groups_flip_when_some_are_equal(make_problem: MakeProblem) -> None:
    present = groups(["A40"] * 4, "DPDD")
    problem = make_problem(*[["A40"]] * 4, workload=PROMPTS, rate_rps=50.0)
    flipped, _, _ = reschedule(problem, present)
    assert letters(flipped).count("P") == 3
    assert letters(flipped)[1] == "P"


def test_nothing_flips_when_nothing_is_gained(make_problem: MakeProblem) -> None:
    for phases in ("PPDD", "DDPP", "PDPD"):
        problem = make_problem(*[["A40"]] * 4, rate_rps=0.5)
        best, _, _ = reschedule(problem, groups(["A40"] * 4, "PPDD"))
        present = groups(["A40"] * 4, phases)
        flipped, _, _ = reschedule(problem, present)
        if letters(best).count("P") == 2:
            assert letters(flipped) == phases


def test_a_group_with_too_many_stages_keeps_its_phase(make_problem: MakeProblem) -> None:
    """Stock SGLang flips one stage only."""
    nodes = [["A40", "A40"]] * 3
    present = groups(["A40"] * 3, "PDD", pp=2)
    stock = make_problem(*nodes, workload=PROMPTS, rate_rps=50.0)
    flipped, _, _ = reschedule(stock, present)
    assert letters(flipped) == "PDD"
    able = EngineLimits(flip_max_pp=2)
    flipped, _, _ = reschedule(
        make_problem(*nodes, workload=PROMPTS, rate_rps=50.0, engine=able), present
    )
    assert letters(flipped) == "PPD" or letters(flipped) == "PDP"


def test_a_colocated_group_stays_so(make_problem: MakeProblem) -> None:
    problem = make_problem(["A40"], ["A40"], rate_rps=1.0)
    flipped, routes, _ = reschedule(problem, groups(["A40"] * 2, "CC"))
    assert letters(flipped) == "CC"
    assert [route.weight for route in routes] == [0.5, 0.5]


@pytest.mark.parametrize("workload", [PROMPTS, ANSWERS, CHAT], ids=["prompts", "answers", "chat"])
def test_climbing_finds_what_trying_everything_finds(
    workload: Workload, make_problem: MakeProblem
) -> None:
    kinds = ["A40", "3090Ti", "A5000", "A6000", "A40"]
    problem = make_problem(*[[kind] for kind in kinds], workload=workload, rate_rps=50.0)
    _, _, climbed = reschedule(problem, groups(kinds, "PDDDD"))
    evaluator = Evaluator(problem)
    every = (
        evaluator.assess(
            [replace(seat, phase=p) for seat, p in zip(climbed.seats, phases, strict=True)]
        )
        for phases in product((Phase.PREFILL, Phase.DECODE), repeat=len(kinds))
    )
    assert climbed.score == pytest.approx(max(each.score for each in every), rel=1e-2)


def test_routes_avoid_pairs_that_the_engine_cannot_join(make_problem: MakeProblem) -> None:
    prefills = groups(["A40"], "P", pp=2)
    same = Group("same", Phase.DECODE, 1, 2, (_half("n1/0"), _half("n1/1")))
    other = Group("other", Phase.DECODE, 1, 1, (Stage(32, (Gpu("n2/0", "A40"),)),))
    nodes = (["A40"] * 2, ["A40"] * 2, ["A40"])
    stock = make_problem(*nodes, engine=EngineLimits(unequal_pp=False))
    assert {route.decode for route in route_groups(stock, [*prefills, same, other])} == {"same"}
    able = make_problem(*nodes, engine=EngineLimits(unequal_pp=True))
    ends = {route.decode for route in route_groups(able, [*prefills, same, other])}
    assert ends == {"same", "other"}


def _half(gpu: str) -> Stage:
    return Stage(16, (Gpu(gpu, "A40"),))
