"""The search for the highest rate ends between one rate on target and one that is not."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import pytest
from plain_cost import PlainCost

from thunderserve.control.planner.simulator import highest_rate
from thunderserve.core.model import model_preset
from thunderserve.core.plan import Phase
from thunderserve.core.slo import Slo

if TYPE_CHECKING:
    from collections.abc import Callable

    from thunderserve.control.planner.problem import Problem
    from thunderserve.control.planner.simulator import RateSearch
    from thunderserve.core.plan import Plan
    from thunderserve.core.trace import Trace

    Search = Callable[..., RateSearch]

SERVICE_S = 0.1
COST = PlainCost(model_preset("llama-7b"), token_s=SERVICE_S / 100, step_s=1e-3)
GROUPS = ((Phase.PREFILL, (("n0/0",),)), (Phase.DECODE, (("n1/0",),)))


@pytest.fixture(scope="session")
def search(
    make_problem: Callable[..., Problem],
    make_plan: Callable[..., Plan],
    make_trace: Callable[..., Trace],
) -> Search:
    """Searches with prompts that take 0.1 s each, one by one, at even distances."""

    def found(
        ttft_s: float, *, tpot_s: float = 1.0, rate_rps: float = 2.0, **given: float
    ) -> RateSearch:
        problem = make_problem(["A40"], ["A40"], slo=Slo(ttft_s, tpot_s))
        trace = make_trace(
            200, gap_s=lambda _: 1 / rate_rps, prompt=lambda _: 100, output=lambda _: 2
        )
        plan = make_plan(problem, GROUPS, chunk_tokens=100)
        return highest_rate(plan, problem, trace, cost=COST, **{"target_ratio": 1.0, **given})

    return found


@pytest.mark.parametrize("rate_rps", [0.01, 2.0, 500.0])
def test_highest_rate_is_that_of_the_only_server_wherever_the_search_begins(
    search: Search, rate_rps: float
) -> None:
    """No queue builds up to 10 per second; beyond, the last of 200 wait."""
    found = search(SERVICE_S * 1.001, rate_rps=rate_rps, runs=30)
    assert found.rate_rps == pytest.approx(1 / SERVICE_S, rel=0.011)
    assert found.rate_rps < found.too_high_rps <= found.rate_rps * 1.01


def test_highest_rate_rises_when_fewer_need_to_be_in_time(search: Search) -> None:
    """At rate r, request n waits n (0.1 - 1/r); half of 200 in 0.2 s allow 0.1 - 1/r = 0.001."""
    found = search(SERVICE_S + 0.1, target_ratio=0.5)
    assert found.rate_rps == pytest.approx(1 / (SERVICE_S - 0.001), rel=0.011)


def test_highest_rate_is_zero_when_no_rate_attains_the_target(search: Search) -> None:
    for bounds in ({"ttft_s": SERVICE_S / 2}, {"ttft_s": 1.0, "tpot_s": 1e-4}):
        found = search(**bounds, runs=6)
        assert found.rate_rps == 0.0
        assert len(found.points) == 6


def test_highest_rate_is_open_above_when_every_rate_attains_the_target(search: Search) -> None:
    """200 requests never wait for 100 s."""
    found = search(100.0, runs=5)
    assert found.too_high_rps == math.inf
    assert found.rate_rps == found.points[-1].rate_rps


def test_points_are_every_run_by_rate(search: Search) -> None:
    found = search(SERVICE_S * 1.001, runs=7)
    rates = [point.rate_rps for point in found.points]
    assert rates == sorted(set(rates))
    assert len(rates) <= 7
    for point in found.points:
        assert (point.attainment_ratio >= found.target_ratio) == (point.rate_rps <= found.rate_rps)
        assert point.report.requests == 200
