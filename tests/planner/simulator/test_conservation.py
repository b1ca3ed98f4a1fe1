"""What must hold of every simulation: nothing is lost, nothing is early, nothing overflows."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from simulated_cases import NODES, Case, cases

from thunderserve.control.planner.design import design_of, replica_of
from thunderserve.control.planner.problem import EngineLimits
from thunderserve.control.planner.simulator import Dispatch, simulate
from thunderserve.core.kv_volume import kv_wire_bytes
from thunderserve.core.plan import Phase

if TYPE_CHECKING:
    from collections.abc import Callable

    from thunderserve.control.planner.problem import Problem
    from thunderserve.control.planner.simulator import SimulationReport
    from thunderserve.core.plan import Plan
    from thunderserve.core.trace import Trace

    Serve = Callable[[Case], tuple[Plan, Problem, Trace, SimulationReport]]

EVERY_CASE = cases(*Dispatch)
SOME = settings(max_examples=40, deadline=None, derandomize=True)


@pytest.fixture(scope="session")
def serve(
    make_problem: Callable[..., Problem],
    make_plan: Callable[..., Plan],
    make_trace: Callable[..., Trace],
) -> Serve:
    """Simulates a case."""

    def simulated(case: Case) -> tuple[Plan, Problem, Trace, SimulationReport]:
        engine = EngineLimits(max_running_requests=case.max_running)
        problem = make_problem(*NODES, engine=engine, gbit_per_s=case.gbit_per_s)
        plan = make_plan(problem, case.groups, chunk_tokens=case.chunk_tokens)
        trace = make_trace(60, rate_rps=case.rate_rps, seed=case.seed)
        return plan, problem, trace, simulate(plan, problem, trace, policy=case.policy)

    return simulated


@given(case=EVERY_CASE)
@SOME
def test_every_request_that_fits_ends_once(serve: Serve, case: Case) -> None:
    """One group of each phase on its way counts it, and its tokens come in order."""
    _, _, trace, report = serve(case)
    count = len(trace.requests)
    assert report.finished == report.requests == count
    served = Counter(dict.fromkeys(Phase, 0))
    for group in report.groups:
        served[group.phase] += group.requests
    assert served[Phase.PREFILL] == served[Phase.DECODE] == count - served[Phase.COLOCATED]
    outcomes = report.outcomes
    assert (outcomes.ttft_s > 0).all()
    assert (outcomes.e2e_s >= outcomes.ttft_s).all()


@given(case=EVERY_CASE)
@SOME
def test_no_group_computes_more_than_all_the_time_or_holds_more_than_its_memory(
    serve: Serve, case: Case
) -> None:
    *_, report = serve(case)
    for group in report.groups:
        assert 0 <= group.utilisation_ratio <= 1 + 1e-9
        assert 0 <= group.kv_peak_ratio <= 1
        assert (group.requests > 0) == (group.utilisation_ratio > 0)


@given(case=EVERY_CASE)
@SOME
def test_links_carry_what_the_requests_caches_are(serve: Serve, case: Case) -> None:
    """Every prompt's cache once, however it is cut and whichever ways its parts take."""
    plan, problem, trace, report = serve(case)
    if all(group.phase is not Phase.COLOCATED for group in plan.groups):
        prompts = sum(request.prompt_tokens for request in trace.requests)
        size = kv_wire_bytes(problem.model, prompts, problem.wire_mode)
        assert sum(link.bytes for link in report.links) == pytest.approx(size)
    for link in report.links:
        assert link.bytes > 0
        assert link.source == link.target or link.utilisation_ratio > 0


@given(case=EVERY_CASE)
@SOME
def test_nobody_is_served_faster_than_an_empty_fleet_can(serve: Serve, case: Case) -> None:
    """No first token before the fastest prefill, no later ones before cache and steps took time.

    A pipeline's micro-batches are of mean length: a long request among short ones gains a little.
    """
    plan, problem, trace, report = serve(case)
    cost = problem.cost
    replicas = {g.phase: [] for g in plan.groups}
    for group in plan.groups:
        replicas[group.phase].append(replica_of(design_of(group), problem.cluster))
    split = Phase.COLOCATED not in replicas
    computing = [r for phase, each in replicas.items() if phase is not Phase.DECODE for r in each]
    decoding = [r for phase, each in replicas.items() if phase is not Phase.PREFILL for r in each]
    shortest = min(request.prompt_tokens for request in trace.requests)
    for request, ttft_s, e2e_s in zip(
        trace.requests, report.outcomes.ttft_s, report.outcomes.e2e_s, strict=True
    ):
        prompt, steps = request.prompt_tokens, request.output_tokens - 1
        if case.chunk_tokens >= prompt:
            assert ttft_s >= min(cost.prefill_latency_s(r, prompt) for r in computing) - 1e-9
        step_s = min(
            cost.decode_step_s(replica, 1, 1 + (prompt if len(replica) == 1 else shortest))
            for replica in decoding
        )
        latency_s = 1e-5 if split and steps else 0.0
        assert e2e_s - ttft_s >= steps * step_s + latency_s - 1e-9


@given(case=EVERY_CASE)
@settings(max_examples=10, deadline=None, derandomize=True)
def test_the_same_input_gives_the_same_report(serve: Serve, case: Case) -> None:
    *_, first = serve(case)
    *_, again = serve(case)
    assert first == again
    for one, other in zip(
        (first.outcomes.ttft_s, first.outcomes.tpot_s, first.outcomes.e2e_s),
        (again.outcomes.ttft_s, again.outcomes.tpot_s, again.outcomes.e2e_s),
        strict=True,
    ):
        assert np.array_equal(one, other)
