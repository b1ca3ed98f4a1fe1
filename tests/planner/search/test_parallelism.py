"""Groups hold the model in every way that fits, and layers balance unequal stages."""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from thunderserve.control.planner.flow.shapes import Shapes
from thunderserve.control.planner.problem import EngineLimits, Problem
from thunderserve.control.planner.search.parallelism import Parallelism, balance_layers
from thunderserve.control.planner.search.partition import Bins
from thunderserve.core.plan import Phase
from thunderserve.core.slo import Slo

if TYPE_CHECKING:
    from collections.abc import Callable

    from thunderserve.control.planner.design import Design

    MakeProblem = Callable[..., Problem]

ONE_NODE = EngineLimits()
TWO_NODES = EngineLimits(max_nodes=2)


class Chooser:
    """The design that serves the most."""

    def __init__(self, problem: Problem) -> None:
        self.parallelism = Parallelism(problem, Shapes(problem), Bins(problem.cluster))

    def choose(self, counts: tuple[int, ...], phase: Phase) -> Design | None:
        return next(iter(self.parallelism.options(counts, phase)), None)


def parallelism(problem: Problem) -> Chooser:
    return Chooser(problem)


def test_options_trade_requests_for_time(make_problem: MakeProblem) -> None:
    """Stages in a row prefill the most, GPUs side by side the soonest."""
    problem = make_problem(["A40"] * 4, model="llama-30b", slo=Slo(100.0, 1.0))
    shapes = Shapes(problem)
    options = Parallelism(problem, shapes, Bins(problem.cluster)).options((4,), Phase.PREFILL)
    assert [(design.tp, design.pp) for design in options] == [(1, 4), (2, 2), (4, 1)]
    worth = [shapes.alone_rps(design, Phase.PREFILL) for design in options]
    idle = [shapes.figures(design, Phase.PREFILL).idle_s for design in options]
    assert worth == sorted(worth, reverse=True)
    assert idle == sorted(idle, reverse=True)


@given(
    layers=st.integers(1, 9),
    speeds=st.lists(st.sampled_from([1.0, 2.0, 3.5]), min_size=1, max_size=3),
    most=st.lists(st.integers(0, 6), min_size=3, max_size=3),
)
@settings(max_examples=100, deadline=None, derandomize=True)
def test_balanced_layers_are_optimal(layers: int, speeds: list[float], most: list[int]) -> None:
    """Against every split of the layers."""
    room = most[: len(speeds)]
    splits = [
        split for split in product(*(range(limit + 1) for limit in room)) if sum(split) == layers
    ]
    if not splits:
        return
    found = balance_layers(layers, speeds, room)
    assert found in splits

    def slowest(split: tuple[int, ...]) -> float:
        return max(count / speed for count, speed in zip(split, speeds, strict=True))

    assert slowest(found) == pytest.approx(min(map(slowest, splits)))


def test_one_gpu_needs_no_parallelism(make_problem: MakeProblem) -> None:
    design = parallelism(make_problem(["A40"])).choose((1,), Phase.PREFILL)
    assert design is not None
    assert (design.tp, design.pp) == (1, 1)


def test_there_is_no_design_when_the_weights_do_not_fit(make_problem: MakeProblem) -> None:
    problem = make_problem(["3090Ti"] * 2, model="llama-30b")
    for phase in Phase:
        assert parallelism(problem).choose((2,), phase) is None


def test_tensor_parallelism_stays_within_a_node(make_problem: MakeProblem) -> None:
    problem = make_problem(["A40"] * 2, ["A40"] * 2, engine=TWO_NODES)
    chooser = parallelism(problem)
    for counts in ((1, 1), (2, 2), (2, 1)):
        design = chooser.choose(counts, Phase.DECODE)
        assert design is not None
        assert design.tp * design.pp == sum(counts)
        assert all(len(stage.types) == design.tp for stage in design.stages)


def test_groups_stay_on_as_many_nodes_as_the_engine_runs_on(make_problem: MakeProblem) -> None:
    nodes = (["A40"], ["A40"])
    assert parallelism(make_problem(*nodes, engine=ONE_NODE)).choose((1, 1), Phase.DECODE) is None
    design = parallelism(make_problem(*nodes, engine=TWO_NODES)).choose((1, 1), Phase.DECODE)
    assert design is not None
    assert [stage.node for stage in design.stages] == ["n0", "n1"]


def test_degrees_stay_within_the_engine_s(make_problem: MakeProblem) -> None:
    narrow = make_problem(["A40"] * 4, engine=EngineLimits(max_tp=1, max_pp=4))
    short = make_problem(["A40"] * 4, engine=EngineLimits(max_tp=4, max_pp=1))
    for phase in (Phase.PREFILL, Phase.DECODE):
        design = parallelism(narrow).choose((4,), phase)
        assert design is not None
        assert (design.tp, design.pp) == (1, 4)
        design = parallelism(short).choose((4,), phase)
        assert design is not None
        assert (design.tp, design.pp) == (4, 1)


def test_degrees_divide_the_model_s_heads(make_problem: MakeProblem) -> None:
    """OPT-13B's 40 heads cannot be shared by three."""
    problem = make_problem(["A40"] * 3, model="opt-13b", engine=EngineLimits(max_pp=1))
    assert parallelism(problem).choose((3,), Phase.DECODE) is None


def test_unequal_stages_get_unequal_layers(make_problem: MakeProblem) -> None:
    """The A40 computes 3.7 times as fast as the 3090Ti."""
    problem = make_problem(["A40", "3090Ti"], engine=EngineLimits(max_tp=1))
    design = parallelism(problem).choose((1, 1), Phase.PREFILL)
    assert design is not None
    layers = {stage.types[0]: stage.layers for stage in design.stages}
    assert sum(layers.values()) == 32
    assert layers["A40"] / layers["3090Ti"] == pytest.approx(149.7 / 40, rel=0.2)


def test_decode_prefers_bandwidth_where_prefill_prefers_arithmetic(
    make_problem: MakeProblem,
) -> None:
    problem = make_problem(["A40", "3090Ti"], engine=EngineLimits(max_tp=1))
    chooser = parallelism(problem)
    decode = chooser.choose((1, 1), Phase.DECODE)
    prefill = chooser.choose((1, 1), Phase.PREFILL)
    assert decode is not None
    assert prefill is not None
    by_phase = [
        next(stage.layers for stage in design.stages if stage.types == ("3090Ti",))
        for design in (prefill, decode)
    ]
    assert by_phase[0] < by_phase[1]
