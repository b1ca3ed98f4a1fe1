"""Small programs with known solutions."""

from __future__ import annotations

import math

import pytest

from thunderserve.control.planner.certificate.program import Program


def knapsack() -> Program:
    """4a + 5b within 2a + 3b <= 7, a <= 2."""
    program = Program()
    a = program.add_variable(4.0, upper=2.0, integer=True)
    b = program.add_variable(5.0, integer=True)
    program.add_row([(a, 2.0), (b, 3.0)], 7.0)
    return program


def test_program_finds_the_best_whole_numbers() -> None:
    answer = knapsack().solve()
    assert answer.values == pytest.approx((2.0, 1.0))
    assert answer.bound == pytest.approx(13.0)


def test_program_prices_rows_when_numbers_need_not_be_whole() -> None:
    """What is left after 2a is cut at 5 for each 3."""
    answer = knapsack().solve(integers=False)
    assert answer.objective == answer.bound == pytest.approx(13.0)
    assert answer.prices == pytest.approx((5 / 3,))


def test_program_says_that_nothing_satisfies_its_rows() -> None:
    program = knapsack()
    program.add_row([(0, -1.0)], -3.0)
    answer = program.solve()
    assert not answer.feasible
    assert (answer.bound, answer.objective) == (-math.inf, -math.inf)


def test_program_changes_a_limit() -> None:
    program = knapsack()
    program.set_limit(0, 4.0)
    assert program.solve().objective == pytest.approx(8.0)
