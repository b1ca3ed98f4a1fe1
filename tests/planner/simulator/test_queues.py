"""Where theory knows the answer, the simulator gives it: D/D/1, M/D/1, M/G/1, M/M/c."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import pytest
from plain_cost import PlainCost

from thunderserve.control.planner.problem import EngineLimits
from thunderserve.control.planner.simulator import simulate
from thunderserve.core.hardware import Link
from thunderserve.core.model import model_preset
from thunderserve.core.plan import Phase

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy.typing as npt

    from thunderserve.control.planner.problem import Problem
    from thunderserve.control.planner.simulator import Outcomes
    from thunderserve.core.draws import Draws
    from thunderserve.core.plan import Plan
    from thunderserve.core.trace import Trace

    Run = Callable[..., Outcomes]

MODEL = model_preset("llama-7b")
SERVICE_S = 1.0
PROMPT = 100
PLAIN = PlainCost(MODEL, token_s=SERVICE_S / PROMPT)
WARM_UP = 500
# Estimates of a mean miss the truth by more than this many standard errors once in 16,000 runs.
STANDARD_ERRORS = 4.0


@pytest.fixture(scope="session")
def run(make_problem: Callable[..., Problem], make_plan: Callable[..., Plan]) -> Run:
    """Serves a trace with one prefill and one decode group; prompts of a chunk each."""

    def simulated(
        trace: Trace, cost: PlainCost = PLAIN, *, max_running: int = 10**6, stages: int = 1
    ) -> Outcomes:
        engine = EngineLimits(max_running_requests=max_running)
        problem = make_problem(["A40", "A40"], ["A40"], engine=engine)
        pipeline = tuple((f"n0/{index}",) for index in range(stages))
        groups = [(Phase.PREFILL, pipeline), (Phase.DECODE, (("n1/0",),))]
        plan = make_plan(problem, groups, chunk_tokens=PROMPT)
        return simulate(plan, problem, trace, cost=cost).outcomes

    return simulated


def constant(tokens: int) -> Callable[[Draws], int]:
    return lambda _: tokens


def assert_mean(values: npt.NDArray[np.float64], expected: float, bias: float = 0.0) -> None:
    """The mean of a correlated series is the expected one, by means of 30 batches."""
    batches = values[WARM_UP : WARM_UP + (len(values) - WARM_UP) // 30 * 30].reshape(30, -1)
    means = batches.mean(axis=1)
    error = STANDARD_ERRORS * means.std(ddof=1) / math.sqrt(len(means))
    assert error < 0.3 * expected  # else the comparison says nothing
    assert abs(means.mean() - expected) <= error + bias


def test_prefill_is_a_d_d_1_queue_when_nothing_is_random(
    run: Run, make_trace: Callable[..., Trace]
) -> None:
    """Nobody waits when arrivals are slower than service; when faster, all the more."""
    lengths = {"prompt": constant(PROMPT), "output": constant(1)}
    slower = run(make_trace(50, gap_s=lambda _: 1.25, **lengths))
    assert slower.ttft_s == pytest.approx(np.full(50, SERVICE_S))
    faster = run(make_trace(50, gap_s=lambda _: 0.75, **lengths))
    assert faster.ttft_s == pytest.approx(SERVICE_S + 0.25 * np.arange(50))


@pytest.mark.parametrize("busy", [0.5, 0.8])
def test_prefill_is_an_m_d_1_queue_when_prompts_are_equal(
    run: Run, make_trace: Callable[..., Trace], busy: float
) -> None:
    """The mean wait is rho s / (2 (1 - rho))."""
    trace = make_trace(40_000, rate_rps=busy, prompt=constant(PROMPT), output=constant(1))
    waits = run(trace).ttft_s - SERVICE_S
    assert_mean(waits, busy * SERVICE_S / (2 * (1 - busy)))


def test_prefill_is_an_m_g_1_queue_when_prompts_differ(
    run: Run, make_trace: Callable[..., Trace]
) -> None:
    """The mean wait is lambda E[s^2] / (2 (1 - rho)); Pollaczek and Khinchine."""

    def prompt(draws: Draws) -> int:
        return 5 * PROMPT if draws.below(10) == 0 else PROMPT

    trace = make_trace(40_000, rate_rps=0.5, prompt=prompt, output=constant(1))
    services = np.array([r.prompt_tokens for r in trace.requests]) / PROMPT * SERVICE_S
    mean, square = 0.9 + 0.1 * 5, 0.9 + 0.1 * 25
    assert_mean(run(trace).ttft_s - services, 0.5 * square / (2 * (1 - 0.5 * mean)))


def test_a_pipeline_waits_once_when_its_stages_are_equal(
    run: Run, make_trace: Callable[..., Trace]
) -> None:
    """Behind an M/D/1 stage, arrivals are never closer than service."""
    trace = make_trace(20_000, rate_rps=0.6, prompt=constant(PROMPT), output=constant(1))
    waits = run(trace, stages=2).ttft_s - 2 * SERVICE_S
    assert_mean(waits, 0.6 / (2 * (1 - 0.6)))


def test_waits_follow_lindley_s_recursion_exactly(
    run: Run, make_trace: Callable[..., Trace]
) -> None:
    """W' = max(0, w + s - a): first come, first served, and never idle while somebody waits."""
    trace = make_trace(
        500, rate_rps=0.3, prompt=lambda draws: PROMPT * (1 + draws.below(6)), output=constant(1)
    )
    wait_s, expected = 0.0, []
    for index, request in enumerate(trace.requests):
        service_s = request.prompt_tokens / PROMPT * SERVICE_S
        expected.append(wait_s + service_s)
        if index + 1 < len(trace.requests):
            gap_s = trace.requests[index + 1].arrival_s - request.arrival_s
            wait_s = max(0.0, wait_s + service_s - gap_s)
    assert run(trace).ttft_s == pytest.approx(np.array(expected))


def test_arrivals_find_as_many_as_little_s_law_says(
    run: Run, make_trace: Callable[..., Trace]
) -> None:
    """Poisson arrivals see the average over time, which is the rate times the mean stay."""
    trace = make_trace(20_000, rate_rps=0.7, prompt=constant(PROMPT), output=constant(1))
    stays = run(trace).ttft_s
    arrivals = np.array([request.arrival_s for request in trace.requests])
    ends = np.sort(arrivals + stays)
    found = np.arange(len(arrivals)) - np.searchsorted(ends, arrivals, side="right")
    assert_mean(found.astype(np.float64), 0.7 * stays[WARM_UP:].mean())


@pytest.mark.parametrize(("servers", "busy"), [(1, 0.6), (4, 0.7)])
def test_decode_is_an_m_m_c_queue_when_answers_are_geometric(
    run: Run, make_trace: Callable[..., Trace], servers: int, busy: float
) -> None:
    """With c places and equal steps, the mean wait is Erlang's C / (c mu - lambda).

    Requests join between steps, so each waits up to one step more.
    """
    steps, step_s = 200, SERVICE_S / 200
    cost = PlainCost(MODEL, token_s=1e-9, step_s=step_s)

    def output(draws: Draws) -> int:
        return 2 + int(draws.exponential(1 / -math.log1p(-1 / steps)))

    rate = busy * servers / SERVICE_S
    trace = make_trace(30_000, rate_rps=rate, prompt=constant(PROMPT), output=output)
    outcomes = run(trace, cost, max_running=servers)
    answers = np.array([request.output_tokens - 1 for request in trace.requests])
    waits = outcomes.e2e_s - outcomes.ttft_s - answers * step_s
    assert waits.min() > -1e-6
    assert_mean(waits, _erlang_c(servers, busy * servers) / (servers - rate), bias=step_s)


def _erlang_c(servers: int, load: float) -> float:
    """Probability that all places are taken."""
    full = load**servers / math.factorial(servers) * servers / (servers - load)
    return full / (sum(load**k / math.factorial(k) for k in range(servers)) + full)


def test_a_port_is_an_m_d_1_queue_when_prompts_are_equal(
    run: Run, make_trace: Callable[..., Trace]
) -> None:
    """Caches of equal size take turns; what decode does afterwards is one step."""
    size = PROMPT * MODEL.kv_bytes_per_token * 4.5 / 16
    cost = PlainCost(MODEL, token_s=1e-9, step_s=1e-6, byte_s=SERVICE_S / size)
    trace = make_trace(40_000, rate_rps=0.7, prompt=constant(PROMPT), output=constant(2))
    outcomes = run(trace, cost)
    waits = outcomes.e2e_s - outcomes.ttft_s - SERVICE_S
    assert_mean(waits, 0.7 / (2 * (1 - 0.7)), bias=2e-4)
    assert cost.transfer_s(size, Link(1.0)) == pytest.approx(SERVICE_S)
