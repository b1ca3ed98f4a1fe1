"""Concave curves of what is in time, as lines that a linear program can read."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from thunderserve.control.planner.physics.curves import (
    LOAD_SHARES,
    hull,
    loss_lines,
    most_on_target_rps,
)

CAPACITY = 4.0
LOADS = CAPACITY * LOAD_SHARES


def met(corners: list[tuple[float, float]], loads: np.ndarray) -> np.ndarray:
    xs, ys = zip(*corners, strict=True)
    return np.asarray(np.interp(loads, xs, ys))


def test_looks_at_all_of_the_capacity() -> None:
    assert LOAD_SHARES[0] == 0.0
    assert LOAD_SHARES[-1] == pytest.approx(1.0)
    assert (np.diff(LOAD_SHARES) > 0).all()


def test_lines_are_the_curve_when_it_is_concave() -> None:
    ratios = 0.9 - 0.8 * LOAD_SHARES**2
    lines = loss_lines(hull(LOADS, ratios), 0.9)
    for load, ratio in zip(LOADS, ratios, strict=True):
        lost = max([0.0, *(slope * load - offset for slope, offset in lines)])
        assert lost == pytest.approx(load * (0.9 - ratio), abs=0.01 * CAPACITY)


def test_no_lines_when_nothing_is_lost() -> None:
    assert loss_lines(hull(LOADS, np.full_like(LOADS, 0.7)), 0.7) == ()


def test_most_on_target_is_where_the_target_s_share_is_still_in_time() -> None:
    corners = [(0.0, 0.0), (2.0, 2.0), (4.0, 3.0)]
    assert most_on_target_rps(corners, 0.9) == pytest.approx(2.5)
    assert most_on_target_rps(corners, 0.5) == 4.0
    assert most_on_target_rps([(0.0, 0.0), (4.0, 2.0)], 0.9) == 0.0


RATIOS = st.lists(st.floats(0, 1), min_size=len(LOADS), max_size=len(LOADS)).map(
    lambda values: np.array(sorted(values, reverse=True))
)


@given(RATIOS)
@settings(max_examples=60, deadline=None, derandomize=True)
def test_hull_is_concave_and_hardly_below_the_curve(ratios: np.ndarray) -> None:
    corners = hull(LOADS, ratios)
    gains = [(y1 - y0) / (x1 - x0) for (x0, y0), (x1, y1) in pairwise(corners)]
    assert gains == sorted(gains, reverse=True)
    assert (met(corners, LOADS) >= LOADS * ratios - 0.02 * CAPACITY).all()


@given(RATIOS, RATIOS)
@settings(max_examples=60, deadline=None, derandomize=True)
def test_a_better_group_has_a_higher_hull(one: np.ndarray, other: np.ndarray) -> None:
    better, worse = (hull(LOADS, each) for each in (np.maximum(one, other), one))
    assert (met(better, LOADS) >= met(worse, LOADS) - 0.02 * CAPACITY).all()
