"""A plan tells why it has colocated groups and its size of chunks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from thunderserve.control.planner.design import Design, DesignStage
from thunderserve.control.planner.flow.evaluate import Evaluator, Seat
from thunderserve.control.planner.flow.reason import reason_for
from thunderserve.control.planner.problem import EngineLimits
from thunderserve.core.plan import Phase
from thunderserve.core.slo import Slo
from thunderserve.core.workload import workload_preset

if TYPE_CHECKING:
    from tests.planner.conftest import MakeProblem

CHOICE = EngineLimits(phases=tuple(Phase), chunk_tokens=(512, 2048))
SLO = Slo(10.0, 0.3)


def seat(name: str, phase: Phase, node: str) -> Seat:
    return Seat(name, phase, Design((DesignStage(60, node, ("A40",) * 4),)))


def reason(make_problem: MakeProblem, *seats: Seat, gbit_per_s: float, engine: EngineLimits) -> str:
    problem = make_problem(
        ["A40"] * 4,
        ["A40"] * 4,
        model="llama-30b",
        workload=workload_preset("azure-code"),
        rate_rps=0.2,
        slo=SLO,
        engine=engine,
        gbit_per_s=gbit_per_s,
    )
    evaluator = Evaluator(problem)
    return reason_for(evaluator, evaluator.assess(seats))


def test_a_slow_port_is_named_where_its_transfers_would_be_late(make_problem: MakeProblem) -> None:
    both = [seat(f"c{i}", Phase.COLOCATED, f"n{i}") for i in range(2)]
    said = reason(make_problem, *both, gbit_per_s=2.0, engine=CHOICE)
    assert "n0's 2 Gbit/s port would expose" in said
    assert "requests would be late by it alone" in said


def test_a_fast_port_is_not_blamed(make_problem: MakeProblem) -> None:
    both = [seat(f"c{i}", Phase.COLOCATED, f"n{i}") for i in range(2)]
    said = reason(make_problem, *both, gbit_per_s=400.0, engine=CHOICE)
    assert "port" not in said
    assert "c0, c1 prefill and decode" in said


def test_the_chunk_of_a_split_is_explained_by_what_it_exposes(make_problem: MakeProblem) -> None:
    split = [seat("p", Phase.PREFILL, "n0"), seat("d", Phase.DECODE, "n1")]
    said = reason(make_problem, *split, gbit_per_s=40.0, engine=CHOICE)
    assert "chunks of 512 tokens serve most in time" in said
    assert "2048:" in said


def test_nothing_is_said_where_nothing_was_to_be_chosen(make_problem: MakeProblem) -> None:
    only = EngineLimits(phases=(Phase.COLOCATED,))
    assert not reason(make_problem, seat("c", Phase.COLOCATED, "n0"), gbit_per_s=2.0, engine=only)
