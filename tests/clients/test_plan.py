"""`thunderserve plan`."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

import pytest

from thunderserve import demo_model
from thunderserve.cli.main import main
from thunderserve.core.plan_file import plan_from_mapping

if TYPE_CHECKING:
    from pathlib import Path

CLUSTER = """
network: {gbit_per_s: 10}
nodes:
  - {id: n0, gpus: [{type: A40, count: 2}]}
  - {id: n1, gpus: [{type: 3090Ti, count: 2}]}
"""
PIPELINES = """
network: {gbit_per_s: 40}
nodes:
  - {id: n0, gpus: [{type: A5000, count: 2}, {type: 3090Ti, count: 1}]}
  - {id: n1, gpus: [{type: 3090Ti, count: 2}]}
  - {id: n2, gpus: [{type: A40, count: 2}]}
"""
SHORT = ("--time-budget", "0.5", "--rate", "2")


def test_plan_writes_a_plan_file_for_a_cluster_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`-o json` is what `thunderctl plan apply` reads, and stdout holds nothing else."""
    file = tmp_path / "cluster.yaml"
    file.write_text(CLUSTER, encoding="utf-8")

    status = main(["plan", "--cluster", str(file), "--model", "llama-7b", *SHORT, "-o", "json"])

    assert status == 0
    plan = plan_from_mapping(json.loads(capsys.readouterr().out))
    assert {gpu.node for group in plan.groups for gpu in group.gpus} <= {"n0", "n1"}
    assert sum(route.weight for route in plan.routes) == pytest.approx(1)
    assert plan.model == "llama-7b"


def test_plan_prints_the_same_bytes_for_the_same_seed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """How long it took is said on stderr; the search ends long before its time budget."""
    file = tmp_path / "cluster.yaml"
    file.write_text(CLUSTER, encoding="utf-8")
    arguments = ("plan", "--cluster", str(file), "--model", "llama-7b", "--rate", "2")

    outputs = []
    for _ in range(2):
        assert main([*arguments, "--time-budget", "600", "-o", "json"]) == 0
        outputs.append(capsys.readouterr())

    assert outputs[0].out == outputs[1].out
    assert "searched for" in outputs[0].err


def test_plan_certifies_when_asked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """In the plan file and in the table; the table shows each group's load, too."""
    file = tmp_path / "cluster.yaml"
    file.write_text(CLUSTER, encoding="utf-8")
    arguments = ("plan", "--cluster", str(file), "--model", "llama-7b", "--certify", *SHORT)

    assert main([*arguments, "-o", "json"]) == 0
    certificate = plan_from_mapping(json.loads(capsys.readouterr().out)).certificate
    assert certificate is not None
    assert certificate.upper_bound >= certificate.objective > 0

    assert main([*arguments]) == 0
    table = capsys.readouterr().out
    assert f"certificate ({certificate.method})" in table
    assert "LOAD req/s" in table


def test_plan_says_what_keeping_groups_flippable_costs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """On these GPUs a pipeline serves most, and no pipeline flips."""
    file = tmp_path / "cluster.yaml"
    file.write_text(PIPELINES, encoding="utf-8")
    arguments = ("plan", "--cluster", str(file), "--model", "opt-13b", "--rate", "20")

    assert main([*arguments, "--flippable", "1", "-o", "json"]) == 0

    captured = capsys.readouterr()
    plan = plan_from_mapping(json.loads(captured.out))
    assert all(group.pp == 1 for group in plan.groups)
    told = r"100% of the GPUs can flip, 100% were asked for; that costs ([0-9.]+)% of what"
    said = re.search(told, captured.err)
    assert said is not None
    assert 0 < float(said[1]) < 100
    assert captured.err.count("searched for") == 1


def test_plan_reads_a_models_folder_and_shows_a_table(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The demo's model on two hosts."""
    file = tmp_path / "cluster.yaml"
    file.write_text(CLUSTER, encoding="utf-8")

    folder = str(demo_model.model_path())
    status = main(["plan", "--cluster", str(file), "--model", folder, *SHORT])

    assert status == 0
    out = capsys.readouterr().out
    assert "slo_attainment_ratio" in out


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("--cluster", "/no/such", "--model", "llama-7b"), "/no/such"),
        (("--cluster", "paper-cloud-32", "--model", "gpt-9"), "gpt-9"),
        (("--cluster", "paper-cloud-32", "--model", "llama-7b", "--workload", "mine"), "mine"),
        (("--cluster", "paper-cloud-32", "--model", "llama-7b", "--slo-ttft", "-1"), "-1"),
    ],
)
def test_plan_names_what_it_does_not_know(
    arguments: tuple[str, ...], named: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """One line on stderr, exit status 2, and nothing on stdout."""
    status = main(["plan", *arguments])

    captured = capsys.readouterr()
    assert (status, captured.out) == (2, "")
    assert named in captured.err
    assert len(captured.err.splitlines()) == 1


def test_plan_refuses_cluster_file_that_is_not_yaml(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The file and the place in it."""
    file = tmp_path / "cluster.yaml"
    file.write_text("nodes: [", encoding="utf-8")

    assert main(["plan", "--cluster", str(file), "--model", "llama-7b"]) == 2
    assert f"{file} is not YAML" in capsys.readouterr().err
