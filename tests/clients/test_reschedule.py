"""`thunderserve reschedule`, on the samples that are shipped."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from thunderserve.cli.main import main
from thunderserve.control.planner.presets import cluster_preset
from thunderserve.control.planner.problem import Problem
from thunderserve.control.planner.validate import validate
from thunderserve.core.model import model_preset
from thunderserve.core.plan_file import plan_from_mapping, plan_to_mapping
from thunderserve.core.slo import Slo
from thunderserve.core.workload import workload_preset

SAMPLES = Path(__file__).parents[2] / "docs" / "samples"
PLAN = SAMPLES / "plan-paper-cloud-32.json"
LINKS = SAMPLES / "links.yaml"
LIGHT = ("--workload", "azure-conv", "--replan-budget", "0")


def reschedule(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    assert main(["reschedule", "--plan", str(PLAN), *arguments, "-o", "json"]) == 0
    written: dict[str, Any] = json.loads(capsys.readouterr().out)
    return written


def test_the_sample_plan_is_valid_and_written_as_plans_are() -> None:
    text = PLAN.read_text(encoding="utf-8")
    plan = plan_from_mapping(json.loads(text))
    problem = Problem(
        cluster_preset("paper-cloud-32"),
        model_preset("llama-30b"),
        workload_preset("azure-conv"),
        Slo(3.0, 0.15),
    )
    assert validate(plan, problem) == ()
    assert json.loads(text) == plan_to_mapping(plan)


def test_reschedule_writes_a_plan_of_the_groups_that_are_left(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Of the plan's file alone: its hosts are enough."""
    before = plan_from_mapping(json.loads(PLAN.read_text(encoding="utf-8")))
    written = reschedule(capsys, *LIGHT, "--lost", "n3", "--links", str(LINKS))

    after = plan_from_mapping(written)
    left = [g for g in before.groups if all(gpu.node != "n3" for gpu in g.gpus)]
    assert [(g.id, g.stages) for g in after.groups] == [(g.id, g.stages) for g in left]
    assert after.reason.startswith("links as in links.yaml; n3 lost: ")
    gains = written["reschedule"]
    assert gains["goodput_rps"] >= gains["goodput_without_flips_rps"] > 0
    assert "full_replan_reload_s" not in gains


def test_reschedule_weighs_a_full_replan_by_what_loads(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Twice as fast a disk halves the seconds."""
    asked = ("--workload", "azure-code", "--rate", "4", "--lost", "n0", "--replan-budget", "60")
    slow, fast = (
        reschedule(capsys, *asked, "--load-gb-per-s", rate)["reschedule"] for rate in ("1", "2")
    )
    assert slow["full_replan_reload_s"] == pytest.approx(2 * fast["full_replan_reload_s"])
    assert slow["full_replan_reload_s"] > 0


def test_reschedule_shows_every_answer_with_its_goodput(
    capsys: pytest.CaptureFixture[str],
) -> None:
    cluster = ("--cluster", "paper-cloud-32", "--lost", "n0", "--lost", "n1")
    assert main(["reschedule", "--plan", str(PLAN), *LIGHT, *cluster]) == 0
    captured = capsys.readouterr()
    for row in ("nothing: the old routes", "new routes", "flips"):
        assert row in captured.out
    assert captured.err == ""


@pytest.mark.parametrize(
    ("arguments", "status", "named"),
    [
        (("--lost", "n9"), 3, "'n9'"),
        (tuple(f"--lost=n{i}" for i in range(8)), 6, "every node is lost"),
        (("--model", "llama-7b"), 2, "the plan is for llama-30b"),
        (("--cluster", "paper-inhouse-8xa100"), 2, "another cluster"),
        (("--links", "/no/such"), 2, "/no/such"),
        (("--links", str(PLAN)), 2, "unknown key"),
    ],
)
def test_reschedule_says_in_one_line_what_is_wrong(
    arguments: tuple[str, ...], status: int, named: str, capsys: pytest.CaptureFixture[str]
) -> None:
    cluster = () if "--cluster" in arguments else ("--cluster", "paper-cloud-32")
    given = ["reschedule", "--plan", str(PLAN), *LIGHT, *cluster, *arguments]
    assert main(given) == status
    captured = capsys.readouterr()
    assert captured.out == ""
    assert named in captured.err
    assert len(captured.err.splitlines()) == 1


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("nodes: []", "nodes"),
        ("{}", "links: is missing"),
        ("links: [{from: n0, to: n1}]", "links[0].gbit_per_s"),
        ("links: [{from: n0, to: n9, gbit_per_s: 1}]", "n0 - n9"),
        ("links: [{from: n0, to: n1, gbit_per_s: 0}]", "links[0]"),
        (
            "links: [{from: n0, to: n1, gbit_per_s: 1}, {from: n1, to: n0, gbit_per_s: 2}]",
            "twice",
        ),
        ("- n0", "expected a mapping"),
    ],
)
def test_reschedule_says_what_is_wrong_with_a_links_file(
    text: str, named: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "links.yaml"
    file.write_text(text, encoding="utf-8")
    given = ["reschedule", "--plan", str(PLAN), *LIGHT, "--cluster", "paper-cloud-32"]
    assert main([*given, "--links", str(file)]) == 2
    captured = capsys.readouterr()
    assert named in captured.err
    assert len(captured.err.splitlines()) == 1
