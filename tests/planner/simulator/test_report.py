"""A report's figures are what its requests had."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import pytest
from plain_cost import PlainCost

from thunderserve.control.planner.problem import EngineLimits
from thunderserve.control.planner.simulator import (
    Attainment,
    Dispatch,
    Outcomes,
    Quantiles,
    ServingPolicy,
    simulate,
)
from thunderserve.core.model import model_preset
from thunderserve.core.plan import Phase
from thunderserve.core.slo import Slo
from thunderserve.core.trace import Trace, TracedRequest

if TYPE_CHECKING:
    from collections.abc import Callable

    from thunderserve.control.planner.problem import Problem
    from thunderserve.control.planner.simulator import SimulationReport
    from thunderserve.core.plan import Plan

P, D = Phase.PREFILL, Phase.DECODE
COST = PlainCost(model_preset("llama-7b"), token_s=0.01, step_s=0.1)
INF = math.inf

# Three requests: fast throughout; slow to the first token; slow afterwards. A fourth never ends.
FOUR = Outcomes.of(
    arrival_s=np.array([0.0, 1.0, 2.0, 3.0]),
    first_s=np.array([1.0, 6.0, 3.0, INF]),
    last_s=np.array([2.0, 7.0, 8.0, INF]),
    output=np.array([11.0, 11.0, 11.0, 11.0]),
)


def test_outcomes_are_what_lies_between_the_moments() -> None:
    assert FOUR.ttft_s.tolist() == [1.0, 5.0, 1.0, INF]
    assert FOUR.e2e_s.tolist() == [2.0, 6.0, 6.0, INF]
    assert FOUR.tpot_s == pytest.approx([0.1, 0.1, 0.5, INF])


def test_attainment_judges_every_bound_alone_and_all_together() -> None:
    assert FOUR.attainment(Slo(2.0, 0.2)) == Attainment(0.25, 0.5, 0.5, 0.75)
    assert FOUR.attainment(Slo(9.0, 9.0, e2e_s=3.0)) == Attainment(0.25, 0.75, 0.75, 0.25)


def test_attainment_rises_with_the_scale_of_the_bounds_from_one_run() -> None:
    ratios = [FOUR.attainment(Slo(1.0, 0.1).scaled(scale)).slo_ratio for scale in (0.5, 1, 5, 99)]
    assert ratios == [0.0, 0.25, 0.75, 0.75]


def test_quantiles_are_zero_when_nothing_was_measured() -> None:
    assert Quantiles.of(np.array([])) == Quantiles(0.0, 0.0, 0.0, 0.0)
    assert Quantiles.of(np.arange(101.0)) == Quantiles(50.0, 50.0, 90.0, 99.0)


@pytest.fixture
def report(
    make_problem: Callable[..., Problem], make_plan: Callable[..., Plan]
) -> Callable[..., SimulationReport]:
    """Serves requests at 0.01 s per prompt token and 0.1 s per step."""

    def simulated(
        groups: object, *requests: tuple[float, int, int], slo: Slo, dispatch: Dispatch
    ) -> SimulationReport:
        problem = make_problem(["A40"] * 2, ["A40"] * 2, slo=slo, engine=EngineLimits())
        plan = make_plan(problem, groups, chunk_tokens=100)
        trace = Trace("few", tuple(TracedRequest(*request) for request in requests))
        return simulate(plan, problem, trace, policy=ServingPolicy(dispatch), cost=COST)

    return simulated


def test_rates_count_requests_by_arrivals_and_tokens_by_the_time_until_the_last(
    report: Callable[..., SimulationReport],
) -> None:
    """Three in 4 s, the last of which takes 1 s of prefill and 10 steps; one misses its bound."""
    seen = report(
        ((P, (("n0/0",),)), (D, (("n1/0",),))),
        *((0.0, 100, 11), (2.0, 300, 11), (4.0, 100, 11)),
        slo=Slo(2.5, 1.0),
        dispatch=Dispatch.WEIGHTED,
    )
    assert seen.duration_s == pytest.approx(4 + 2 + 1, abs=1e-3)
    assert seen.throughput_tokens_per_s == pytest.approx(33 / seen.duration_s)
    assert seen.slo_attainment_ratio == pytest.approx(2 / 3)
    assert seen.goodput_rps == pytest.approx(2 / 3 * 2 / 4)
    assert seen.ttft.mean == pytest.approx((1 + 3 + 2) / 3)
    assert seen.tpot.p50 == pytest.approx(0.1, abs=1e-3)
    prefill, decode = seen.groups
    assert prefill.utilisation_ratio == pytest.approx(5 / seen.duration_s)
    assert decode.utilisation_ratio == pytest.approx(3 / seen.duration_s, abs=0.02)
    assert (prefill.kv_peak_ratio, decode.kv_peak_ratio) == pytest.approx((4e-10, 4.22e-10))


def test_the_shortest_queue_is_sought_in_prefill_first_and_then_in_decode(
    report: Callable[..., SimulationReport],
) -> None:
    """A long prompt turns the next away from its prefill group, a long answer from its decode."""
    groups = ((P, (("n0/0",),)), (P, (("n0/1",),)), (D, (("n1/0",),)), (D, (("n1/1",),)))
    prompts = ((0.0, 5000, 2), *((1.0 + n, 10, 2) for n in range(6)))
    seen = report(groups, *prompts, slo=Slo(1.0, 1.0), dispatch=Dispatch.SHORTEST_QUEUE)
    assert [group.requests for group in seen.groups[:2]] == [1, 6]
    answers = ((0.0, 10, 5000), *((1.0 + n, 10, 2) for n in range(6)))
    seen = report(groups, *answers, slo=Slo(1.0, 1.0), dispatch=Dispatch.SHORTEST_QUEUE)
    assert [group.requests for group in seen.groups[2:]] == [1, 6]
