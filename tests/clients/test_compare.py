"""`thunderserve compare` lists every strategy with its goodput, and draws what it is asked to."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from thunderserve.cli.main import main
from thunderserve.cli.planning.charts import Bars, Line, draw_bars, draw_lines

if TYPE_CHECKING:
    from pathlib import Path

CLUSTER = """
network: {gbit_per_s: 10}
nodes:
  - {id: n0, gpus: [{type: A40, count: 2}]}
  - {id: n1, gpus: [{type: 3090Ti, count: 2}]}
"""
OTHER = """
network: {gbit_per_s: 10}
nodes:
  - {id: n0, gpus: [{type: A100, count: 1}]}
"""
PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture
def options(tmp_path: Path) -> list[str]:
    path = tmp_path / "small.yaml"
    path.write_text(CLUSTER, encoding="utf-8")
    return [
        *("--cluster", str(path), "--model", "llama-7b", "--workload", "azure-conv"),
        *("--arrivals", "poisson", "--requests", "60"),
    ]


def run(options: list[str], capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    assert main(["compare", *options, "-o", "json"]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def test_compare_lists_strategies_with_goodput_and_ratio(
    options: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    found = run([*options, "--strategies", "vllm,distserve"], capsys)
    rows = {row["name"]: row for row in found["strategies"]}
    assert list(rows) == ["thunderserve", "vllm", "distserve"]
    for row in rows.values():
        assert row["goodput_rps"] * 1.02 > row["goodput_99_rps"] > 0
        ratio = rows["thunderserve"]["goodput_rps"] / row["goodput_rps"]
        assert row["ours_ratio"] == pytest.approx(ratio)
        assert row["goodput_per_usd"] == pytest.approx(
            row["goodput_rps"] * 3600 / row["usd_per_hour"]
        )
        assert row["source"]
    assert rows["vllm"]["departures"]
    assert set(rows["vllm"]["groups"]) == {"COLOCATED"}
    assert found["workload"] == "azure-conv"
    assert "against" not in found


def test_compare_against_another_cluster_and_in_figures(
    options: list[str], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    figures, other_file = tmp_path / "figures", tmp_path / "other.yaml"
    other_file.write_text(OTHER, encoding="utf-8")
    more = ["--strategies", "vllm", "--against", str(other_file), "--figures", str(figures)]
    found = run([*options, *more], capsys)
    other = found["against"]
    assert other["cluster"] == str(other_file)
    assert other["usd_per_hour"] == pytest.approx(1.753)
    ours = found["strategies"][0]["goodput_rps"]
    for row in other["strategies"]:
        assert row["ours_ratio"] == pytest.approx(ours / row["goodput_rps"])
        shares = [share for _, share in row["by_rate"]]
        assert shares[0] >= shares[-1]
        by_scale = [share for _, share in row["by_slo_scale"]]
        assert by_scale == sorted(by_scale)
    drawn = sorted(path.name for path in figures.iterdir())
    assert drawn == [
        f"azure-conv-{cluster}-{kind}.png"
        for cluster in ("other", "small")
        for kind in ("by-rate", "by-slo", "goodput")
    ]
    assert all(path.read_bytes().startswith(PNG) for path in figures.iterdir())


def test_compare_as_a_table_says_where_strategies_depart(
    options: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["compare", *options, "--strategies", "vllm"]) == 0
    shown = capsys.readouterr().out
    assert "GOODPUT 90%" in shown
    assert "vLLM balances no load between replicas" in shown


def test_compare_refuses_an_unknown_strategy(
    options: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["compare", *options, "--strategies", "orca"]) != 0
    assert "no strategy 'orca'; there are thunderserve, hexgen" in capsys.readouterr().err


def test_strategy_without_a_place_is_listed_with_its_reason(
    options: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """The model fits on one of the nodes, so there cannot be two groups of equal GPUs."""
    tight = [option.replace("llama-7b", "llama-30b") for option in options]
    found = run([*tight, "--strategies", "distserve"], capsys)
    row = found["strategies"][1]
    assert row["goodput_rps"] == 0
    assert "distserve finds no place for llama-30b" in row["refused"]
    assert row["ours_ratio"] is None


def test_lines_are_drawn_over_their_file(tmp_path: Path) -> None:
    path = tmp_path / "new" / "lines.png"
    lines = [Line("one", ((0.0, 1.0), (1.0, 0.5))), Line("none", ())]
    draw_lines(path, lines, title="t", x_label="x (s)", y_label="y (s)", mark_y=0.7)
    first = path.read_bytes()
    assert first.startswith(PNG)
    draw_lines(path, lines[:1], title="t", x_label="x (s)", y_label="y (s)", y_range=(0, 1))
    assert path.read_bytes() != first


def test_bars_are_drawn(tmp_path: Path) -> None:
    path = tmp_path / "bars.png"
    draw_bars(path, ["a", "b"], [Bars("one", (1.0, 2.0))], title="t", y_label="y (rps)")
    assert path.read_bytes().startswith(PNG)
