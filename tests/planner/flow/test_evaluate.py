"""An assessment poses the flow that the groups and the links between them allow."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest

from thunderserve.control.planner.design import Design, DesignStage
from thunderserve.control.planner.flow.evaluate import Evaluator, Seat
from thunderserve.control.planner.flow.predict import predict
from thunderserve.core.hardware import Link
from thunderserve.core.plan import Phase
from thunderserve.core.slo import Slo
from thunderserve.core.workload import Workload

if TYPE_CHECKING:
    from collections.abc import Callable

    from thunderserve.control.planner.problem import Problem

    MakeProblem = Callable[..., Problem]

CHAT = Workload.from_means(rate_rps=1.0, prompt_tokens=1000, output_tokens=11)
KV_BYTES = 1000 * 32 * 2 * 4096 * 2
INT4_BYTES = KV_BYTES * 4.5 / 16


def seat(name: str, phase: Phase, node: str) -> Seat:
    return Seat(name, phase, Design((DesignStage(32, node, ("A40",)),)))


PREFILL = seat("p", Phase.PREFILL, "n0")
FAR = seat("far", Phase.DECODE, "n1")
NEAR = seat("near", Phase.DECODE, "n0")


def test_only_what_leaves_a_node_burdens_its_port(make_problem: MakeProblem) -> None:
    evaluator = Evaluator(make_problem(["A40"] * 2, ["A40"], workload=CHAT))
    posed = evaluator.assess([PREFILL, FAR, NEAR]).problem
    sent = {pair.decode: dict(pair.bytes) for pair in posed.pairs}
    assert sent["near"] == {}
    assert sent["far"] == pytest.approx({"n0 out": INT4_BYTES, "n1 in": INT4_BYTES})
    assert evaluator.port_rates["n0 out"] == pytest.approx(5e9 * 0.76)
    assert 0.5 * 5e9 * 0.76 < posed.ports["n0 out"] < 5e9 * 0.76, "full ports make transfers late"


def test_a_transfer_takes_the_link_s_time(make_problem: MakeProblem) -> None:
    evaluator = Evaluator(make_problem(["A40"] * 2, ["A40"], workload=CHAT))
    far = evaluator.transfer(PREFILL, FAR).seconds(1000)
    assert far == pytest.approx(INT4_BYTES / (5e9 * 0.76) + 1e-4)
    assert evaluator.transfer(PREFILL, NEAR).seconds(1000) < far
    both = seat("c", Phase.COLOCATED, "n0")
    assert evaluator.transfer(both, both).seconds(1000) == 0.0


def test_the_slower_way_attains_less_under_a_tight_bound(make_problem: MakeProblem) -> None:
    """An idle A40 takes 23 ms a token, and the transfer 5 ms more through 40 Gbit/s."""
    problem = make_problem(["A40"] * 2, ["A40"], workload=CHAT, slo=Slo(5.0, 0.025))
    posed = Evaluator(problem).assess([PREFILL, FAR, NEAR]).problem
    assert {p.decode: p.attainment_ratio for p in posed.pairs} == {"far": 0.0, "near": 1.0}


def test_shapes_are_computed_once_for_equal_groups(make_problem: MakeProblem) -> None:
    evaluator = Evaluator(make_problem(["A40"] * 2, ["A40"] * 2))
    one = evaluator.shapes.figures(seat("a", Phase.DECODE, "n0").design, Phase.DECODE)
    other = evaluator.shapes.figures(seat("b", Phase.DECODE, "n1").design, Phase.DECODE)
    assert one is other


def test_prediction_counts_what_was_assessed(make_problem: MakeProblem) -> None:
    problem = make_problem(["A40"] * 2, ["A40"], workload=CHAT, rate_rps=0.5)
    evaluator = Evaluator(problem)
    assessment = evaluator.assess([PREFILL, FAR])
    predicted = predict(evaluator, assessment)

    assert predicted.slo_attainment_ratio == pytest.approx(1.0)
    assert predicted.throughput_tokens_per_s == pytest.approx(0.5 * 11)
    assert predicted.usd_per_hour == pytest.approx(2 * 0.403)
    step_s = evaluator.shapes.figures(FAR.design, Phase.DECODE).step_s(0.5)
    transfer_s = evaluator.transfer(PREFILL, FAR).seconds(1000)
    assert predicted.tpot_p99_s == pytest.approx(step_s + transfer_s / 10)


def test_predicted_ttft_is_met_by_99_in_100(make_problem: MakeProblem) -> None:
    problem = make_problem(["A40"] * 2, ["A40"], rate_rps=2.0, slo=Slo(100.0, 100.0))
    evaluator = Evaluator(problem)
    predicted = predict(evaluator, evaluator.assess([PREFILL, FAR]))
    figures = evaluator.shapes.figures(PREFILL.design, Phase.PREFILL)
    begun = figures.begun(np.array([2.0]), predicted.ttft_p99_s)
    assert evaluator.shapes.share_of(begun)[0] == pytest.approx(0.99, abs=1e-5)


def test_a_link_that_is_slower_than_its_ports_bounds_what_its_nodes_exchange(
    make_problem: MakeProblem,
) -> None:
    patient = Slo(5.0, 5.0)
    problem = make_problem(["A40"], ["A40"], ["A40"], workload=CHAT, rate_rps=50.0, slo=patient)
    free = Evaluator(problem).assess([PREFILL, FAR])
    slow = Link(INT4_BYTES / 0.76, 1e-4)  # one request a second
    links = (("n1", "n0", slow), ("n0", "n2", Link(1e12)))
    narrowed = replace(problem, cluster=replace(problem.cluster, links=links))
    elsewhere = seat("elsewhere", Phase.DECODE, "n2")

    posed = Evaluator(narrowed).assess([PREFILL, FAR, elsewhere])

    assert 0.5 * INT4_BYTES < posed.problem.ports["n0 > n1"] < INT4_BYTES
    assert "n0 > n2" not in posed.problem.ports, "its ports are the bound"
    sent = {pair.decode: set(dict(pair.bytes)) for pair in posed.problem.pairs}
    assert sent["far"] == {"n0 out", "n1 in", "n0 > n1"}
    assert sent["elsewhere"] == {"n0 out", "n2 in"}
    alone = Evaluator(narrowed).assess([PREFILL, FAR])
    assert 0.5 < alone.flow.served_rps < 1.0
    assert free.flow.served_rps > 1.5
