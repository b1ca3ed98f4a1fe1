"""What cannot be planned gets one line that names the value and the way out, by the real entry."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from thunderserve.cli.main import main

if TYPE_CHECKING:
    from pathlib import Path

PLAN = ("plan", "--cluster", "paper-cloud-32", "--model", "llama-30b")
TRACE = "arrival_s,prompt_tokens,output_tokens\n"
NODE = "nodes: [{id: n0, gpus: [{type: A40, count: 2}]}]\n"


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str]) -> Any:
    def run(*arguments: str) -> str:
        """The one line on stderr of a command that ends with status 2 and no data."""
        status = main(arguments)
        captured = capsys.readouterr()
        assert (status, captured.out) == (2, ""), captured.err
        assert len(captured.err.splitlines()) == 1, captured.err
        return captured.err

    return run


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--rate", "0"), "rate_rps is 0.0; it must be > 0"),
        (("--rate", "-3"), "rate_rps is -3.0"),
        (("--rate", "nan"), "rate_rps is nan"),
        (("--rate", "fast"), "'--rate': Input should be a valid number"),
        (("--workload", "azure"), "azure is no preset (azure-code, azure-conv)"),
        (("--model", "llama-9"), "llama-9 is no preset (llama-7b"),
        (("--cluster", "mine"), "mine is no preset (paper-cloud-32"),
        (("--profile", "fp4"), "no hardware profile 'fp4'; there are paper_table1"),
        (("--arrivals", "recorded"), "--arrivals recorded needs a trace's file"),
        (("--objective", "profit"), "'profit' is not one of 'goodput', 'capacity'"),
        (("--target", "2"), "target_ratio is 2.0; it must be in [0, 1]"),
        (("--flippable", "nan"), "flippable_ratio is nan"),
        (("--slo-ttft", "-1"), "ttft_s is -1.0"),
        (("--slo-scale", "0"), "scale is 0.0"),
        (("--slo-scale", "5", "--slo-reference", "A101"), "no GPU type 'A101'"),
        (("--slo-scale", "5", "--slo-reference", "CPU"), "name a larger reference GPU"),
        (("--link", "0"), "--link: gbit_per_s is 0.0"),
        (("--links", "/no/such"), "--links /no/such is no file"),
        (("--max-nodes", "0"), "max_nodes is 0"),
        (("--phases", "prefill,train"), "'train'; there are prefill, decode, colocated"),
        (("--phases", "decode"), "serves nobody"),
        (("--time-budget", "0"), "found '0'"),
        (("--nope", "1"), "No such option: --nope"),
    ],
)
def test_plan_refuses_an_option(refused: Any, arguments: tuple[str, ...], words: str) -> None:
    assert words in refused(*PLAN, *arguments)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("nodes: [", "is not YAML"),
        ("- n0", "expected a mapping"),
        ("nodes: [{id: n0, gpus: [{type: A41}]}]", "no GPU type 'A41'"),
        ("nodes: [{id: n0, gpus: [{type: A30}]}]", "price of A30; give it under usd_per_hour"),
        ("usd_per_hour: {A40: -0.1}\n" + NODE, "usd_per_hour is -0.1; it must be >= 0"),
        ("network: {gbit_per_s: 0}\n" + NODE, "bytes_per_s is 0.0"),
        ("nodes: []", "a cluster without nodes"),
        (NODE.replace("count: 2", "count: 1"), "its weights take 65.1 GB"),
    ],
)
def test_plan_refuses_a_cluster_file(refused: Any, tmp_path: Path, text: str, words: str) -> None:
    file = tmp_path / "cluster.yaml"
    file.write_text(text, encoding="utf-8")
    line = refused("plan", "--cluster", str(file), "--model", "llama-30b")
    assert words in line


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "is empty; it needs at least 2 requests"),
        (TRACE, "has 0 requests"),
        (TRACE + "0,1,1\n1,-2,3\n", "line 3: prompt_tokens is '-2'"),
        ("a,b\n", "does not name the columns"),
    ],
)
def test_plan_refuses_a_trace(refused: Any, tmp_path: Path, text: str, words: str) -> None:
    file = tmp_path / "trace.csv"
    file.write_text(text, encoding="utf-8")
    assert words in refused(*PLAN, "--workload", str(file))


def test_plan_refuses_a_model_that_it_cannot_describe(refused: Any, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"num_experts": 8}', encoding="utf-8")
    line = refused("plan", "--cluster", "paper-cloud-32", "--model", str(tmp_path))
    assert "a mixture of experts" in line


# A plan file for one host of two A40, and how it can be wrong.


def group(name: str, phase: str, *gpus: str, layers: int = 32, tp: int = 1) -> dict[str, Any]:
    """A group of one stage."""
    held = [{"id": gpu, "type": "A40"} for gpu in gpus]
    return {
        "id": name, "phase": phase, "tp": tp, "pp": 1,
        "stages": [{"layers": layers, "gpus": held}],
    }  # fmt: skip


def plan_file(groups: list[dict[str, Any]], weight: float = 1.0, **others: Any) -> dict[str, Any]:
    """A plan that sends everything from the first group to the last."""
    route = {"prefill": groups[0]["id"], "decode": groups[-1]["id"], "weight": weight}
    return {"model": "llama-7b", "groups": groups, "routes": [route], **others}


PREFILL, DECODE = group("p", "PREFILL", "n0/0"), group("d", "DECODE", "n0/1")


@pytest.mark.parametrize(
    ("plan", "words"),
    [
        (plan_file([PREFILL, group("d", "DECODE", "n0/0")]), "GPU n0/0 is in two places"),
        (plan_file([PREFILL, group("d", "DECODE", "n9/0")]), "n9/0, which the cluster lacks"),
        (
            plan_file([PREFILL, group("d", "DECODE", "n0/1", "n1/0", tp=2)]),
            "group d has a stage on n0 and n1",
        ),
        (plan_file([PREFILL, group("d", "DECODE", "n0/1", layers=31)]), "d holds 31 layers"),
        (plan_file([PREFILL, DECODE], weight=0.9), "route weights sum to 0.9, not to 1"),
        (plan_file([PREFILL, PREFILL | {"id": "d"}]), "in two places"),
        (plan_file([DECODE, PREFILL]), "route d -> p joins DECODE to PREFILL"),
        (plan_file([PREFILL, DECODE], rotes=[]), "rotes: unknown key"),
        (plan_file([PREFILL, DECODE | {"phase": "TRAIN"}]), "'TRAIN' is not one of PREFILL"),
        ([], "expected a mapping"),
    ],
)
def test_simulate_refuses_a_plan_file(
    refused: Any, tmp_path: Path, plan: dict[str, Any], words: str
) -> None:
    assert words in simulated(refused, tmp_path, plan)


def test_simulate_refuses_weights_over_memory(refused: Any, tmp_path: Path) -> None:
    plan = plan_file([group("c", "COLOCATED", "n0/0", layers=60)], model="llama-30b")
    assert "65.1 GB of weights on GPU n0/0, which has room for" in simulated(
        refused, tmp_path, plan
    )


def simulated(refused: Any, folder: Path, plan: Any) -> str:
    """The line about a plan on a host of two A40 and one of a single A40."""
    file, cluster = folder / "plan.json", folder / "cluster.yaml"
    file.write_text(json.dumps(plan), encoding="utf-8")
    nodes = NODE.replace("}]}]", "}]}, {id: n1, gpus: [{type: A40}]}]")
    cluster.write_text(nodes, encoding="utf-8")
    line: str = refused(
        *("simulate", "--plan", str(file), "--cluster", str(cluster), "--max-nodes", "2")
    )
    return line


def test_simulate_refuses_hosts_of_unknown_price(refused: Any, tmp_path: Path) -> None:
    file = tmp_path / "plan.json"
    text = json.dumps(plan_file([PREFILL, DECODE])).replace("A40", "A30")
    file.write_text(text, encoding="utf-8")
    line = refused("simulate", "--plan", str(file), "--profile", "tensor_dense")
    assert "price of A30; give it under usd_per_hour" in line


def test_simulate_names_every_violation_on_a_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = plan_file([group("p", "PREFILL", "n0/0", layers=3), group("d", "DECODE", "n5/0")])
    file = tmp_path / "plan.json"
    file.write_text(json.dumps(plan), encoding="utf-8")

    status = main(["simulate", "--plan", str(file), "--cluster", "paper-inhouse-8xa100"])

    lines = capsys.readouterr().err.splitlines()
    assert status == 2
    assert [line.rpartition("(")[2] for line in lines] == ["gpu-type)", "gpu-unknown)", "layers)"]


@pytest.mark.parametrize("missing", ["--plan", "--requests"])
def test_simulate_refuses_a_missing_plan_and_a_lone_request(
    refused: Any, tmp_path: Path, missing: str
) -> None:
    file = tmp_path / "plan.json"
    if missing == "--plan":
        assert f"--plan {file} is no file" in refused("simulate", "--plan", str(file))
        return
    file.write_text(json.dumps(plan_file([PREFILL, DECODE])), encoding="utf-8")
    line = refused(
        *("simulate", "--plan", str(file), "--cluster", "paper-inhouse-8xa100"),
        *("--requests", "1"),
    )
    assert "--requests is 1; it must be at least 2" in line
