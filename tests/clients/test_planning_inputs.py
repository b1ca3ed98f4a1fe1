"""Options become a problem and a trace."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from thunderserve.cli.planning.inputs import read_problem, read_trace
from thunderserve.cli.planning.options import ArrivalKind, ProblemOptions, TraceOptions
from thunderserve.core.errors import InvalidArgumentError
from thunderserve.core.plan import Phase
from thunderserve.core.slo import Slo
from thunderserve.core.workload import POISSON

if TYPE_CHECKING:
    from pathlib import Path

GIVEN = ProblemOptions(cluster="paper-cloud-32", model="llama-30b", workload="azure-conv")
TRACE = "arrival_s,prompt_tokens,output_tokens\n0,500,20\n1,500,20\n3,700,10\n"


def test_bounds_are_the_model_s_unless_they_are_given() -> None:
    assert read_problem(GIVEN).slo == Slo(3.0, 0.15)
    assert read_problem(replace(GIVEN, model="llama-7b")).slo == Slo(2.0, 0.15)
    given = replace(GIVEN, slo_ttft=1.0, slo_e2e=9.0)
    assert read_problem(given).slo == Slo(1.0, 0.15, 9.0)


def test_bounds_scale_with_what_a_request_takes_alone() -> None:
    """Twice the scale is twice the bounds; a bound that is given is not scaled."""
    five = read_problem(replace(GIVEN, slo_scale=5.0)).slo
    ten = read_problem(replace(GIVEN, slo_scale=10.0, slo_tpot=0.2)).slo
    slower = read_problem(replace(GIVEN, slo_scale=5.0, slo_reference="A40")).slo

    assert ten.ttft_s == pytest.approx(2 * five.ttft_s)
    assert ten.tpot_s == 0.2
    assert five.e2e_s is None
    assert slower.tpot_s > five.tpot_s


def test_link_changes_every_port_and_links_single_pairs(tmp_path: Path) -> None:
    file = tmp_path / "links.yaml"
    file.write_text("links: [{from: n0, to: n1, gbit_per_s: 2}]", encoding="utf-8")

    cluster = read_problem(replace(GIVEN, link=5.0, links=file)).cluster

    assert cluster.link("n2", "n7").bytes_per_s == pytest.approx(5e9 / 8)
    assert cluster.link("n1", "n0").bytes_per_s == pytest.approx(2e9 / 8)


def test_phases_limit_the_engine() -> None:
    engine = read_problem(replace(GIVEN, phases="decode, prefill", max_nodes=2)).engine
    assert engine.phases == (Phase.PREFILL, Phase.DECODE)
    assert engine.max_nodes == 2


def test_profile_replaces_a_cluster_file_s_own(tmp_path: Path) -> None:
    file = tmp_path / "cluster.yaml"
    file.write_text("nodes: [{id: n0, gpus: [{type: A6000, count: 4}]}]", encoding="utf-8")
    given = replace(GIVEN, cluster=str(file))

    assert read_problem(given).cluster.types[0].tflops == 154.8
    assert read_problem(replace(given, profile="paper_table1")).cluster.types[0].tflops == 38.7


def test_arrivals_are_fitted_unless_poisson_is_asked_for() -> None:
    fitted, poisson = (
        read_problem(replace(GIVEN, workload="azure-code", arrivals=kind)).workload
        for kind in (None, ArrivalKind.POISSON)
    )
    assert len(fitted.arrivals.levels) > 1
    assert poisson.arrivals is POISSON
    assert poisson.requests == fitted.requests


def test_trace_of_a_file_is_as_recorded_unless_drawn(tmp_path: Path) -> None:
    file = tmp_path / "trace.csv"
    file.write_text(TRACE, encoding="utf-8")
    given = replace(GIVEN, workload=str(file))

    recorded = read_trace(given, TraceOptions(), seed=0)
    fewer = read_trace(given, TraceOptions(requests=2), seed=0)
    drawn = read_trace(
        replace(given, arrivals=ArrivalKind.FITTED, rate=4.0), TraceOptions(requests=50), seed=0
    )

    assert [r.arrival_s for r in recorded.requests] == [0.0, 1.0, 3.0]
    assert len(fewer.requests) == 2
    assert len(drawn.requests) == 50
    assert drawn.rate_rps == pytest.approx(4.0, rel=0.3)


@pytest.mark.parametrize("chunks", ["5x", "0", "512,,2048", "-1"])
def test_read_problem_names_a_chunk_size_that_is_none(chunks: str) -> None:
    """The value, and what would do."""
    given = replace(GIVEN, chunks=chunks)

    with pytest.raises(InvalidArgumentError, match=r"--chunks has .* such as 512,2048"):
        read_problem(given)


def test_read_problem_offers_every_chunk_size_once() -> None:
    given = replace(GIVEN, chunks="512, 2048,512")

    assert read_problem(given).engine.chunk_tokens == (512, 2048)
