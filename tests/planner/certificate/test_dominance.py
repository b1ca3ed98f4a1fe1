"""Leaving out dominated columns changes no optimum."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from thunderserve.control.planner.certificate.columns import Column, Lane, Site, Stock, stock_of
from thunderserve.control.planner.certificate.dominance import undominated
from thunderserve.control.planner.certificate.master import Master
from thunderserve.control.planner.design import Design, DesignStage
from thunderserve.control.planner.flow.evaluate import Evaluator
from thunderserve.control.planner.flow.flow import Station
from thunderserve.control.planner.problem import Objective, Problem
from thunderserve.core.plan import Phase

if TYPE_CHECKING:
    from collections.abc import Callable

    MakeProblem = Callable[..., Problem]


@pytest.mark.parametrize("objective", Objective)
def test_optimum_stays_when_dominated_columns_go(
    make_problem: MakeProblem, objective: Objective
) -> None:
    problem = make_problem(["A40"] * 2 + ["3090Ti"] * 2, ["A5000"] * 2, rate_rps=20.0)
    problem = replace(problem, objective=objective)
    stock = stock_of(Evaluator(problem), pooled=False)
    thinned = undominated(stock)
    assert len(thinned.columns) < len(stock.columns)
    whole, less = Master(problem, stock).solve(), Master(problem, thinned).solve()
    assert less.objective == pytest.approx(whole.objective, rel=1e-5)


def stock(*stations: Station, counts: tuple[int, ...] = (1, 1), ratio: float = 0.9) -> Stock:
    """Two prefill columns, of which only the second may differ, and one that decodes."""
    design = Design((DesignStage(1, "n0", ("A40",)),))
    columns = [
        Column((0,), (counts[min(i, 1)],), each.phase, design, each)
        for i, each in enumerate(stations)
    ]
    lanes = (Lane(0, 2, 0.9), Lane(1, 2, ratio))
    return Stock((Site(("n0",), (0,), (4,)),), tuple(columns), lanes, (4,), {})


PREFILL = Station("", Phase.PREFILL, 2.0, ((0.5, 0.5),))
DECODE = Station("", Phase.DECODE, 2.0)


@pytest.mark.parametrize(
    ("made", "left"),
    [
        (stock(PREFILL, PREFILL, DECODE), 2),
        (stock(PREFILL, PREFILL, DECODE, counts=(1, 2)), 2),
        (stock(PREFILL, replace(PREFILL, capacity_rps=2.1), DECODE, counts=(1, 2)), 3),
        (stock(PREFILL, replace(PREFILL, losses=()), DECODE, counts=(1, 2)), 3),
        (stock(PREFILL, PREFILL, DECODE, counts=(1, 2), ratio=0.95), 3),
        (stock(PREFILL, replace(PREFILL, losses=((1.0, 0.2),)), DECODE), 2),
        (stock(PREFILL, replace(PREFILL, losses=((0.2, 0.15),)), DECODE), 3),
    ],
    ids=["equal", "more-gpus", "serves-more", "loses-less", "suits", "worse", "crossing"],
)
def test_column_is_left_out_only_when_another_is_as_good_in_everything(
    made: Stock, left: int
) -> None:
    assert len(undominated(made).columns) == left
