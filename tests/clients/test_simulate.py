"""`thunderserve simulate`, on a plan by hand."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from thunderserve.cli.main import main

if TYPE_CHECKING:
    from pathlib import Path

PLAN = {
    "model": "llama-7b",
    "groups": [
        {
            "id": name, "phase": phase, "tp": 1, "pp": 1,
            "stages": [{"layers": 32, "gpus": [{"id": gpu, "type": "A100"}]}],
        }
        for name, phase, gpu in (("p", "PREFILL", "n0/0"), ("d", "DECODE", "n0/1"))
    ],
    "routes": [{"prefill": "p", "decode": "d", "weight": 1.0}],
}  # fmt: skip
TRACE = "arrival_s,prompt_tokens,output_tokens\n0,500,20\n1,500,20\n3,700,10\n"


@pytest.fixture
def plan(tmp_path: Path) -> str:
    file = tmp_path / "plan.json"
    file.write_text(json.dumps(PLAN), encoding="utf-8")
    return str(file)


def simulated(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    """What `-o json` writes."""
    assert main(["simulate", *arguments, "-o", "json"]) == 0
    report: dict[str, Any] = json.loads(capsys.readouterr().out)
    return report


def test_simulate_replays_a_trace_s_file(
    plan: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """All of it, at the moments it was recorded; at twice the rate in half the time."""
    trace = tmp_path / "trace.csv"
    trace.write_text(TRACE, encoding="utf-8")
    given = ("--plan", plan, "--cluster", "paper-inhouse-8xa100", "--workload", str(trace))

    recorded = simulated(capsys, *given)
    faster = simulated(capsys, *given, "--rate", "1.333333")

    assert (recorded["requests"], recorded["finished"]) == (3, 3)
    assert recorded["rate_rps"] == pytest.approx(2 / 3)
    assert 3 < recorded["duration_s"] < 4
    assert 1.5 < faster["duration_s"] < 2.5
    assert {group["id"] for group in recorded["groups"]} == {"p", "d"}


def test_simulate_draws_from_a_preset_by_seed(
    plan: str, capsys: pytest.CaptureFixture[str]
) -> None:
    cluster = ("--plan", plan, "--cluster", "paper-inhouse-8xa100")
    given = (*cluster, "--workload", "azure-conv", "--rate", "2", "--requests", "200")

    first, again = simulated(capsys, *given), simulated(capsys, *given)
    other = simulated(capsys, *given, "--seed", "1")

    assert first == again
    assert first["requests"] == 200
    assert other["ttft"] != first["ttft"]


def test_simulate_takes_hosts_and_model_from_the_plan(
    plan: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """What it assumes is said on stderr; the table shows times, groups and links."""
    status = main(["simulate", "--plan", plan, "--requests", "20", "--rate", "2"])

    captured = capsys.readouterr()
    assert status == 0
    assert "no --cluster: the plan's hosts, each behind 40 Gbit/s" in captured.err
    for word in ("goodput_rps", "TTFT", "P99", "PREFILL", "KV GB"):
        assert word in captured.out
