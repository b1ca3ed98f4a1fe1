"""Many decode steps in closed form take what they take one by one."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from thunderserve.control.planner.simulator.steps import Line, Steps, lines_of
from thunderserve.control.planner.simulator.timings import GroupTimings
from thunderserve.core.catalogue import catalogue
from thunderserve.core.cost import CostModel, StageHardware
from thunderserve.core.hardware import Link
from thunderserve.core.model import model_preset

if TYPE_CHECKING:
    from collections.abc import Callable

SLOPES = st.floats(0, 1e-4)
RISING = st.lists(st.tuples(st.floats(1e-3, 0.1), SLOPES), min_size=1, max_size=4)


def highest(lines: list[tuple[float, float]]) -> Callable[[float], float]:
    return lambda context: max(base + slope * context for base, slope in lines)


def one_by_one(step_s: Callable[[float], float], context: float, count: int) -> float:
    return math.fsum(step_s(context + done) for done in range(count))


@given(lines=RISING, context=st.floats(1, 3000), count=st.integers(0, 400))
@settings(max_examples=150, deadline=None, derandomize=True)
def test_duration_is_the_sum_of_single_steps(
    lines: list[tuple[float, float]], context: float, count: int
) -> None:
    step_s = highest(lines)
    steps = Steps(lines_of(step_s, 4000), context)
    assert steps.duration_s(count) == pytest.approx(one_by_one(step_s, context, count), rel=1e-5)


@given(lines=RISING, context=st.floats(1, 3000), waited_s=st.floats(0, 20))
@settings(max_examples=150, deadline=None, derandomize=True)
def test_count_within_is_the_fewest_steps_that_last_so_long(
    lines: list[tuple[float, float]], context: float, waited_s: float
) -> None:
    steps = Steps(lines_of(highest(lines), 4000), context)
    count = steps.count_within(waited_s)
    assert count >= 1
    assert steps.duration_s(count) >= waited_s * (1 - 1e-9)
    assert count == 1 or steps.duration_s(count - 1) < waited_s


def test_lines_of_finds_the_bend_between_arithmetic_and_memory() -> None:
    """Two lines that cross at 1,000 tokens."""
    first, last = lines_of(highest([(0.02, 0.0), (0.01, 1e-5)]), 5000)
    assert first.until == pytest.approx(1000)
    assert (first.slope_s, last.slope_s) == (pytest.approx(0.0), pytest.approx(1e-5))
    assert last.until == math.inf


def test_lines_of_keeps_one_line_when_there_is_one() -> None:
    (line,) = lines_of(lambda context: 0.01 + 1e-6 * context, 5000)
    assert line.at(700) == pytest.approx(0.01 + 7e-4)


def test_lines_of_follows_a_function_that_bends_all_the_way() -> None:
    """No straight piece at all: it is cut until each is straight enough."""

    def step_s(context: float) -> float:
        return 0.01 + 1e-9 * context**2

    steps = Steps(lines_of(step_s, 4000), 10)
    assert steps.duration_s(3000) == pytest.approx(one_by_one(step_s, 10, 3000), rel=1e-4)


def test_the_last_line_holds_beyond_what_was_asked() -> None:
    steps = Steps((Line(10.0, 1.0, 0.0), Line(math.inf, 0.0, 0.1)), 8.0)
    assert steps.duration_s(5) == pytest.approx(1.0 + 1.0 + 1.0 + 1.1 + 1.2)
    assert steps.count_within(3.05) == 4


@pytest.mark.parametrize("batch", [1, 2, 7, 64])
@pytest.mark.parametrize("stages", [1, 2])
def test_decode_lines_are_the_cost_model_s_steps(batch: int, stages: int) -> None:
    """At every context, also where the group changes from memory to arithmetic."""
    gpu, link = catalogue("paper_table1").get("3090Ti"), Link(32e9, 1e-5)
    replica = tuple(
        StageHardware(32 // stages, (gpu, gpu), link, link if index < stages - 1 else None)
        for index in range(stages)
    )
    cost = CostModel(model_preset("llama-7b"))
    timings = GroupTimings(cost, replica)
    for context in (1, 100, 999.5, 4000, timings.capacity_tokens()):
        step_s = Steps(timings.decode_lines(batch), context).duration_s(1)
        assert step_s == pytest.approx(cost.decode_step_s(replica, batch, context))
