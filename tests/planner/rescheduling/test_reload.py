"""A full re-plan loads the weights of the groups that it makes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from thunderserve.control.planner.problem import EngineLimits, Problem
from thunderserve.control.planner.rescheduling.reload import (
    Replan,
    kept_groups,
    reload_s,
    weigh_replan,
)
from thunderserve.core.plan import Gpu, Group, Phase, Plan, Stage

if TYPE_CHECKING:
    from collections.abc import Callable

    MakeProblem = Callable[..., Problem]

STOCK = EngineLimits()


def group(name: str, phase: Phase, *gpus: str, pp: int = 1) -> Group:
    tp = len(gpus) // pp
    held = [tuple(Gpu(g, "A40") for g in gpus[i * tp : (i + 1) * tp]) for i in range(pp)]
    return Group(name, phase, tp, pp, tuple(Stage(32 // pp, each) for each in held))


def test_groups_are_kept_whose_gpus_hold_what_they_held() -> None:
    before = [group("a", Phase.PREFILL, "n0/0"), group("b", Phase.DECODE, "n0/1", "n0/2")]
    same = group("x", Phase.PREFILL, "n0/1")  # its GPU and n0/0 are alike
    other = group("y", Phase.DECODE, "n1/1", "n1/2")
    assert kept_groups(STOCK, before, [same, other]) == (same,)


def test_a_flip_keeps_weights_only_where_the_engine_can_flip() -> None:
    one = [group("a", Phase.PREFILL, "n0/0")]
    two = [group("a", Phase.PREFILL, "n0/0", "n0/1", pp=2)]
    assert kept_groups(STOCK, one, [group("a", Phase.DECODE, "n0/0")])
    assert not kept_groups(STOCK, one, [group("a", Phase.COLOCATED, "n0/0")])
    flipped = [group("a", Phase.DECODE, "n0/0", "n0/1", pp=2)]
    assert not kept_groups(STOCK, two, flipped)
    assert kept_groups(EngineLimits(flip_max_pp=2), two, flipped)


def test_a_group_of_before_is_kept_once() -> None:
    before = [group("a", Phase.PREFILL, "n0/0")]
    after = [group("flips", Phase.DECODE, "n0/1"), group("stays", Phase.PREFILL, "n0/0")]
    assert [g.id for g in kept_groups(STOCK, before, after)] == ["stays"]


def test_the_host_with_the_most_to_load_decides(make_problem: MakeProblem) -> None:
    problem = make_problem(["A40"] * 3, ["A40"] * 3)
    before = [group("a", Phase.PREFILL, "n0/0"), group("b", Phase.DECODE, "n1/0")]
    after = [*before, group("c", Phase.DECODE, "n1/1"), group("d", Phase.DECODE, "n1/2")]
    weights = problem.model.weight_bytes
    assert reload_s(problem, before, after, bytes_per_s=1e9) == pytest.approx(2 * weights / 1e9)
    assert reload_s(problem, before, before, bytes_per_s=1e9) == 0.0


def test_only_what_stays_serves_while_weights_load(make_problem: MakeProblem) -> None:
    problem = make_problem(["A40"] * 2, ["A40"], rate_rps=20.0)
    before = [group("a", Phase.PREFILL, "n0/0"), group("b", Phase.DECODE, "n1/0")]
    plan = Plan(0, "", 0, "llama-7b", (*before, group("c", Phase.DECODE, "n0/1")), ())
    weighed = weigh_replan(problem, before, plan, bytes_per_s=1e9)
    assert 0 < weighed.loading_rps < weighed.goodput_rps
    nothing_stays = weigh_replan(problem, before[:1], plan, bytes_per_s=1e9)
    assert nothing_stays.loading_rps == 0.0


def test_payback_counts_what_is_missed_while_weights_load() -> None:
    """30 s at 2 instead of 4 requests/s are made good by 1 request/s more in another 60 s."""
    assert Replan(5.0, 2.0, 30.0).payback_s(4.0) == pytest.approx(90.0)
    assert Replan(4.0, 2.0, 30.0).payback_s(4.0) is None
