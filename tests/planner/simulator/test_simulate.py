"""What a simulated fleet does with a few requests, each followed by hand."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest

from thunderserve.control.planner.design import design_of, replica_of
from thunderserve.control.planner.problem import EngineLimits
from thunderserve.control.planner.simulator import (
    ColocatedBatching,
    Dispatch,
    Reservation,
    ServingPolicy,
    simulate,
)
from thunderserve.core.cost import Work
from thunderserve.core.hardware import GIGABIT_PER_S, Link
from thunderserve.core.kv_volume import kv_wire_bytes
from thunderserve.core.plan import Phase
from thunderserve.core.slo import Slo
from thunderserve.core.trace import Trace, TracedRequest

if TYPE_CHECKING:
    from collections.abc import Callable

    from thunderserve.control.planner.problem import Problem
    from thunderserve.control.planner.simulator import SimulationReport
    from thunderserve.core.cost import Replica
    from thunderserve.core.plan import Plan

    Serve = Callable[..., SimulationReport]

P, D, C = Phase.PREFILL, Phase.DECODE, Phase.COLOCATED
SPLIT = ((P, (("n0/0",),)), (D, (("n1/0",),)))
TOGETHER = ((C, (("n0/0",),)),)
LATENCY_S = 1e-4
LATE_S = 1e4
"""Of a second request that only gives the trace its end."""


def trace_of(*requests: tuple[float, int, int]) -> Trace:
    return Trace("few", tuple(TracedRequest(*request) for request in requests))


@pytest.fixture(scope="session")
def problem(make_problem: Callable[..., Problem]) -> Problem:
    """Two nodes of two A5000 each, at 10 Gbit/s."""
    return make_problem(["A5000"] * 2, ["A5000"] * 2, gbit_per_s=10.0)


@pytest.fixture(scope="session")
def replica(problem: Problem, make_plan: Callable[..., Plan]) -> Replica:
    """One A5000 that holds all layers."""
    return replica_of(design_of(make_plan(problem, SPLIT).groups[0]), problem.cluster)


@pytest.fixture(scope="session")
def serve(problem: Problem, make_plan: Callable[..., Plan]) -> Serve:
    """Simulates requests on groups of that problem."""

    def simulated(
        groups: object, *requests: tuple[float, int, int], **given: object
    ) -> SimulationReport:
        posed = replace(problem, engine=EngineLimits(max_running_requests=given.pop("running", 9)))
        chunk_tokens, weights = given.pop("chunk_tokens", 8192), given.pop("weights", None)
        plan = make_plan(posed, groups, weights, chunk_tokens)
        return simulate(plan, posed, trace_of(*requests), policy=ServingPolicy(**given))

    return simulated


def steps_s(problem: Problem, replica: Replica, prompt: int, output: int) -> float:
    """An answer that decodes alone."""
    return sum(problem.cost.decode_step_s(replica, 1, prompt + n) for n in range(1, output))


def wire_s(problem: Problem, tokens: int, gbit_per_s: float = 10.0) -> float:
    size = kv_wire_bytes(problem.model, tokens, problem.wire_mode)
    return problem.cost.transfer_s(size, Link(gbit_per_s * GIGABIT_PER_S, LATENCY_S))


def test_a_lone_request_takes_prefill_then_transfer_then_steps(
    problem: Problem, replica: Replica, serve: Serve
) -> None:
    outcomes = serve(SPLIT, (0.0, 2000, 20), (LATE_S, 10, 1)).outcomes
    prefill_s = problem.cost.prefill_latency_s(replica, 2000)
    exposed_s = wire_s(problem, 2000)
    decode_s = steps_s(problem, replica, 2000, 20)
    assert outcomes.ttft_s[0] == pytest.approx(prefill_s)
    assert outcomes.e2e_s[0] == pytest.approx(prefill_s + exposed_s + decode_s)
    assert outcomes.tpot_s[0] == pytest.approx((exposed_s + decode_s) / 19)


def test_chunks_hide_all_of_the_transfer_but_the_last_one(
    problem: Problem, replica: Replica, serve: Serve
) -> None:
    """Computing 500 tokens takes longer than sending them, so only the last 500 are waited for."""
    outcomes = serve(SPLIT, (0.0, 2000, 20), (LATE_S, 10, 1), chunk_tokens=500).outcomes
    cost = problem.cost
    prefill_s = sum(
        cost.stage_work_s(replica[0], Work.of_prompt(500, past)) for past in range(0, 2000, 500)
    )
    assert outcomes.ttft_s[0] == pytest.approx(prefill_s)
    exposed_s = outcomes.e2e_s[0] - outcomes.ttft_s[0] - steps_s(problem, replica, 2000, 20)
    assert exposed_s == pytest.approx(wire_s(problem, 500))


def test_short_prompts_share_a_pass_when_they_wait_together(
    problem: Problem, replica: Replica, serve: Serve
) -> None:
    """Behind a long prompt, four of 10 tokens read the weights once."""
    four = [(0.001 * n, 10, 1) for n in range(1, 5)]
    outcomes = serve(SPLIT, (0.0, 2000, 1), *four).outcomes
    one = Work.of_prompt(10)
    shared_s = problem.cost.stage_work_s(replica[0], one + one + one + one)
    ends = outcomes.ttft_s[1:] + np.array([arrival_s for arrival_s, *_ in four])
    assert ends == pytest.approx(np.full(4, outcomes.ttft_s[0] + shared_s))


def test_a_pipeline_starts_the_next_prompt_when_its_first_stage_is_free(
    problem: Problem, serve: Serve, make_plan: Callable[..., Plan]
) -> None:
    groups = ((P, (("n0/0",), ("n0/1",))), SPLIT[1])
    outcomes = serve(groups, (0.0, 4000, 1), (1e-3, 4000, 1)).outcomes
    replica = replica_of(design_of(make_plan(problem, groups).groups[0]), problem.cluster)
    period_s = problem.cost.prefill_period_s(replica, 4000)
    assert outcomes.ttft_s[1] - outcomes.ttft_s[0] == pytest.approx(period_s - 1e-3)


def test_one_token_answers_end_with_prefill_but_their_caches_travel(
    problem: Problem, serve: Serve
) -> None:
    report = serve(SPLIT, (0.0, 1000, 1), (1.0, 1000, 1))
    assert report.outcomes.e2e_s == pytest.approx(report.outcomes.ttft_s)
    assert report.outcomes.tpot_s == pytest.approx(0.0)
    (link,) = report.links
    assert (link.source, link.target) == ("n0", "n1")
    assert link.bytes == pytest.approx(kv_wire_bytes(problem.model, 2000, problem.wire_mode))


def test_a_request_joins_a_running_batch_between_two_steps(
    problem: Problem, replica: Replica, serve: Serve
) -> None:
    """What it waits for is less than a step, and the other's steps go on at once."""
    outcomes = serve(SPLIT, (0.0, 2000, 400), (3.0, 100, 2)).outcomes
    waited_s = outcomes.e2e_s[1] - outcomes.ttft_s[1] - wire_s(problem, 100)
    step_s = problem.cost.decode_step_s(replica, 2, 1100)
    assert step_s < waited_s < 2.1 * step_s


def test_requests_wait_for_a_place_when_the_batch_is_full(serve: Serve) -> None:
    """With one place, the second answer starts when the first is complete."""
    requests = ((0.0, 100, 200), (0.01, 100, 200))
    outcomes = serve(SPLIT, *requests, running=1).outcomes
    ends = outcomes.e2e_s + np.array([0.0, 0.01])
    roomy = serve(SPLIT, *requests).outcomes
    assert ends[1] - ends[0] > 0.9 * roomy.e2e_s[0]
    assert roomy.e2e_s[1] < outcomes.e2e_s[1]


@pytest.mark.parametrize("reservation", list(Reservation))
def test_a_full_decode_group_makes_prefill_wait_or_the_transfer(
    serve: Serve, reservation: Reservation
) -> None:
    """Three requests fill the memory; the fourth is prefilled later, or sent later."""
    requests = [(0.01 * n, 4000, 400) for n in range(4)]
    outcomes = serve(SPLIT, *requests, (LATE_S, 1, 1), reservation=reservation).outcomes
    first_end_s = outcomes.e2e_s[0]
    if reservation is Reservation.BEFORE_PREFILL:
        assert outcomes.ttft_s[3] + 0.03 > first_end_s
    else:
        assert outcomes.ttft_s[3] + 0.03 < first_end_s
    assert outcomes.e2e_s[3] + 0.03 > first_end_s + (outcomes.e2e_s[0] - outcomes.ttft_s[0]) / 2


def test_prefill_first_holds_answers_up_for_a_whole_prompt_and_chunks_do_not(
    problem: Problem, replica: Replica, serve: Serve
) -> None:
    """The running answer loses the whole prompt; with chunks, each of its steps takes a little."""
    requests = ((0.0, 100, 300), (1.0, 6000, 2))
    alone_s = problem.cost.prefill_latency_s(replica, 100) + steps_s(problem, replica, 100, 300)
    prompt_s = problem.cost.prefill_latency_s(replica, 6000)
    first = serve(TOGETHER, *requests, colocated=ColocatedBatching.PREFILL_FIRST).outcomes
    chunked = serve(TOGETHER, *requests, chunk_tokens=256).outcomes
    assert first.e2e_s[0] - alone_s == pytest.approx(prompt_s, rel=0.02)
    assert first.ttft_s[1] - prompt_s < problem.cost.decode_step_s(replica, 1, 400) * 1.01
    assert chunked.ttft_s[1] > first.ttft_s[1]
    assert chunked.e2e_s[0] - alone_s < 1.1 * prompt_s


def test_a_chunk_that_rides_along_reads_the_weights_once(
    problem: Problem, replica: Replica, serve: Serve
) -> None:
    """One pass for a token of the answer and a short prompt: less than one after the other."""
    outcomes = serve(TOGETHER, (0.0, 1000, 500), (1.0, 20, 1), chunk_tokens=256).outcomes
    both = Work.of_prompt(20) + Work.of_decode(1, 1040)
    step_s = problem.cost.decode_step_s(replica, 1, 1040)
    ridden_s = problem.cost.stage_work_s(replica[0], both)
    assert ridden_s < step_s + problem.cost.stage_prefill_s(replica[0], 20)
    assert ridden_s <= outcomes.ttft_s[1] <= 1.01 * (ridden_s + step_s)


def test_a_request_that_no_group_can_hold_is_refused_and_missed(serve: Serve) -> None:
    report = serve(SPLIT, (0.0, 100_000, 5), (1.0, 100, 5))
    assert (report.requests, report.finished) == (2, 1)
    assert np.isinf(report.outcomes.e2e_s[0])
    assert np.isinf(report.outcomes.tpot_s[0])
    assert report.outcomes.attainment(Slo(1e9, 1e9)).slo_ratio == 0.5
    assert report.ttft.mean == pytest.approx(report.outcomes.ttft_s[1])


def test_a_request_goes_elsewhere_when_the_drawn_pair_cannot_hold_it(serve: Serve) -> None:
    """Two GPUs hold what one cannot, whatever the weights say."""
    groups = (*TOGETHER, (C, (("n1/0", "n1/1"),)))
    weights = {(0, 0): 0.999, (1, 1): 0.001}
    report = serve(groups, (0.0, 18_000, 5), (30.0, 100, 5), weights=weights)
    assert report.finished == 2
    assert [group.requests for group in report.groups] == [1, 1]


def test_nothing_is_served_when_the_plan_has_no_routes(serve: Serve) -> None:
    report = serve(((P, (("n0/0",),)),), (0.0, 100, 5), (1.0, 100, 5))
    assert (report.finished, report.slo_attainment_ratio) == (0, 0.0)
    assert (report.throughput_tokens_per_s, report.goodput_rps) == (0.0, 0.0)


def test_weights_are_matched_from_the_first_request_on(serve: Serve) -> None:
    groups = (*TOGETHER, (C, (("n1/0",),)))
    requests = [(float(n), 10, 2) for n in range(30)]
    report = serve(groups, *requests, weights={(0, 0): 0.7, (1, 1): 0.3})
    assert [group.requests for group in report.groups] == [21, 9]


def test_the_shortest_queue_gets_the_request_when_that_is_the_policy(serve: Serve) -> None:
    """Short prompts go round the group that computes a long one."""
    groups = (*TOGETHER, (C, (("n1/0",),)))
    requests = [(0.0, 8000, 2), *((0.001 * n, 10, 2) for n in range(1, 10))]
    report = serve(groups, *requests, dispatch=Dispatch.SHORTEST_QUEUE)
    assert [group.requests for group in report.groups] == [1, 9]


def test_a_slow_link_between_two_nodes_bounds_what_they_exchange(
    problem: Problem, make_plan: Callable[..., Plan]
) -> None:
    """The ports could carry ten times as much."""
    slow = (("n1", "n0", Link(GIGABIT_PER_S, LATENCY_S)),)
    posed = replace(problem, cluster=replace(problem.cluster, links=slow))
    plan, trace = make_plan(posed, SPLIT), trace_of((0.0, 2000, 2), (LATE_S, 1, 1))
    plain = simulate(make_plan(problem, SPLIT), problem, trace).outcomes.e2e_s[0]
    waited_s = simulate(plan, posed, trace).outcomes.e2e_s[0] - plain
    assert waited_s == pytest.approx(wire_s(problem, 2000, 1.0) - wire_s(problem, 2000))


def test_caches_within_a_node_take_its_own_link(serve: Serve) -> None:
    report = serve((SPLIT[0], (D, (("n0/1",),))), (0.0, 1000, 5), (1.0, 1000, 5))
    assert [(link.source, link.target) for link in report.links] == [("n0", "n0")]
