"""States are worth what their flow is, estimates come close to it, and moves lead everywhere."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from thunderserve.control.planner.problem import EngineLimits, Objective
from thunderserve.control.planner.search.space import SearchSpace
from thunderserve.core.draws import Draws
from thunderserve.core.hardware import Link
from thunderserve.core.plan import Phase

if TYPE_CHECKING:
    from collections.abc import Callable

    from thunderserve.control.planner.problem import Problem
    from thunderserve.control.planner.search.blocks import Layout

    MakeProblem = Callable[..., Problem]

TWO_NODES = EngineLimits(max_nodes=2)


def wandered(space: SearchSpace, seed: int, steps: int) -> Layout:
    """A state some random moves away from a start."""
    draws = Draws(seed)
    state = draws.pick(space.starts())
    for _ in range(steps):
        state = draws.pick(space.neighbours(state))
    return state


@given(
    nodes=st.lists(
        st.sampled_from([("A40",) * 4, ("3090Ti",) * 2, ("A40", "3090Ti", "3090Ti")]),
        min_size=2,
        max_size=6,
    ),
    max_nodes=st.integers(1, 2),
    unequal_pp=st.booleans(),
    gbit_per_s=st.sampled_from([0.5, 5.0, 40.0]),
    rate_rps=st.sampled_from([2.0, 20.0, 100.0]),
    linked=st.booleans(),
    seed=st.integers(0, 2**32),
)
@settings(max_examples=7, deadline=None, derandomize=True)
def test_pooling_alike_groups_loses_nothing(  # noqa: PLR0917 - one argument for each that varies
    make_problem: MakeProblem,
    nodes: list[tuple[str, ...]],
    max_nodes: int,
    unequal_pp: bool,  # noqa: FBT001 - drawn
    gbit_per_s: float,
    rate_rps: float,
    linked: bool,  # noqa: FBT001 - drawn
    seed: int,
) -> None:
    """One station for all alike groups gives the flow of every group for itself."""
    engine = EngineLimits(max_nodes=max_nodes, unequal_pp=unequal_pp)
    problem = make_problem(*nodes, rate_rps=rate_rps, engine=engine, gbit_per_s=gbit_per_s)
    if linked:
        links = (("n0", "n1", Link(1e8, 1e-4)),)
        problem = replace(problem, cluster=replace(problem.cluster, links=links))
    space = SearchSpace(problem, Draws(seed), samples=10)
    state = wandered(space, seed, 4)
    assert space.score(state) == pytest.approx(space.assess(state).score, rel=1e-3, abs=1e-6)


@pytest.mark.parametrize("objective", Objective)
@pytest.mark.parametrize("seed", range(6))
def test_estimate_is_close_where_links_are_fast(
    make_problem: MakeProblem, objective: Objective, seed: int
) -> None:
    problem = make_problem(
        ["A40"] * 4, ["3090Ti"] * 4, ["A5000"] * 4, rate_rps=30.0, gbit_per_s=1000.0
    )
    space = SearchSpace(replace(problem, objective=objective), Draws(seed), samples=20)
    state = wandered(space, seed, 3)
    assert space.estimate(state) == pytest.approx(space.score(state), rel=0.03, abs=0.05)


def test_estimate_knows_that_ports_are_narrow(make_problem: MakeProblem) -> None:
    """Prefill on one node, decode on another: a slow port between them is all there is."""
    values = []
    for gbit_per_s in (0.5, 1000.0):
        problem = make_problem(["A40"] * 2, ["A40"] * 2, rate_rps=50.0, gbit_per_s=gbit_per_s)
        space = SearchSpace(problem, Draws(0), samples=5)
        split = next(
            state
            for state in space.starts()
            if [{part.phase for part in block.parts} for block, _ in state]
            == [{Phase.DECODE}, {Phase.PREFILL}]
        )
        values.append(space.estimate(split))
    assert values[0] < values[1] / 5


def test_neighbours_hold_every_node_once(make_problem: MakeProblem) -> None:
    problem = make_problem(["A40"] * 2, ["A40"] * 2, ["3090Ti"] * 2, engine=TWO_NODES)
    space = SearchSpace(problem, Draws(1), samples=30)
    state = space.starts()[0]
    for _ in range(4):
        around = space.neighbours(state)
        assert len(set(around)) == len(around)
        assert state not in around
        for each in around:
            classes = sorted(c for block, count in each for c in block.classes * count)
            assert classes == [0, 0, 1]
        state = around[len(around) // 2]


def test_neighbours_change_all_alike_nodes_at_once(make_problem: MakeProblem) -> None:
    problem = make_problem(*[["A40"] * 2] * 6)
    space = SearchSpace(problem, Draws(1), samples=30)
    state = max(space.starts(), key=lambda start: max(count for _, count in start))
    ((_, most),) = sorted(state, key=lambda counted: counted[1])[-1:]
    before = dict(state)
    gone = {
        before[block] - dict(each).get(block, 0)
        for each in space.neighbours(state)
        for block in before
    }
    assert {1, most} <= gone


def test_groups_join_nodes_only_as_many_as_the_engine_runs_on(make_problem: MakeProblem) -> None:
    nodes = (["A40"] * 2, ["3090Ti"] * 2, ["A5000"] * 2)
    spans = {}
    for max_nodes in (1, 2):
        problem = make_problem(*nodes, engine=EngineLimits(max_nodes=max_nodes))
        space = SearchSpace(problem, Draws(1), samples=30)
        state = space.starts()[0]
        found = {block for each in space.neighbours(state) for block, _ in each}
        spans[max_nodes] = max(
            sum(count > 0 for count in part.counts) for block in found for part in block.parts
        )
    assert spans == {1: 1, 2: 2}


def test_climbing_never_goes_down(make_problem: MakeProblem) -> None:
    space = SearchSpace(
        make_problem(["A40"] * 4, ["3090Ti"] * 4, rate_rps=30.0), Draws(2), samples=20
    )
    for start in space.starts():
        assert space.estimate(space.climbed(start)) >= space.estimate(start)


def test_search_space_is_cut_short_when_time_is_over(make_problem: MakeProblem) -> None:
    """From then on it gives what it has: one start, no change of a climb, no neighbour."""
    over = False
    problem = make_problem(*[["A40"] * 4, ["3090Ti"] * 3, ["A5000", "A6000"]] * 3, rate_rps=90.0)
    space = SearchSpace(problem, Draws(1), samples=30, enough=lambda: over)
    start, *others = space.starts()
    assert others
    assert space.climbed(start) != start
    assert space.neighbours(start)
    over = True
    assert len(space.starts()) == 1
    assert space.climbed(start) == start
    assert space.neighbours(start) == []


def test_climb_keeps_what_it_gained_when_time_ends_it(make_problem: MakeProblem) -> None:
    problem = make_problem(*[["A40"] * 4, ["3090Ti"] * 3, ["A5000", "A6000"]] * 3, rate_rps=90.0)
    free = SearchSpace(problem, Draws(1), samples=30)
    worst = free.starts()[-1]
    asked = iter(range(1000))
    space = SearchSpace(problem, Draws(1), samples=30, enough=lambda: next(asked) >= 25)
    half = space.climbed(worst)
    assert free.estimate(worst) < free.estimate(half) < free.estimate(free.climbed(worst))


@pytest.mark.parametrize("max_nodes", [1, 2])
def test_starts_leave_apart_what_too_few_nodes_have_left_over(
    make_problem: MakeProblem, max_nodes: int
) -> None:
    """Dozens of alike small hosts once made one block, whose every order was compared."""
    engine = EngineLimits(max_nodes=max_nodes)
    problem = make_problem(*[["3090Ti"]] * 40, ["A40"] * 2, engine=engine, model="llama-30b")
    starts = SearchSpace(problem, Draws(1), samples=5).starts()
    assert all(len(block.classes) <= max_nodes for state in starts for block, _ in state)
