"""`thunderserve rent`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from thunderserve.cli.main import main
from thunderserve.core.plan_file import plan_from_mapping

if TYPE_CHECKING:
    from pathlib import Path

OFFERS: list[dict[str, Any]] = [
    {"id": 1, "gpu_name": "A40", "num_gpus": 2, "dph_total": 0.8},
    {"id": 2, "gpu_name": "RTX 3090", "num_gpus": 2, "dph_total": 0.3},
    {"id": 3, "gpu_name": "Radeon VII", "num_gpus": 2, "dph_total": 0.1},
]
PORT = {"inet_up": 5000, "inet_down": 5000, "inet_up_cost": 0.002, "inet_down_cost": 0.002}
SMALL = ("--model", "llama-7b", "--points", "2", "--time-budget", "0.2")


@pytest.fixture
def offers(tmp_path: Path) -> str:
    """A file of three offers, one of GPUs that nobody knows."""
    file = tmp_path / "offers.json"
    file.write_text(json.dumps([{**offer, **PORT} for offer in OFFERS]), encoding="utf-8")
    return str(file)


def test_rent_writes_what_to_take_the_plan_and_the_front(
    offers: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    figure = tmp_path / "front.png"
    status = main(
        [
            "rent",
            "--budget",
            "1.2",
            "--offers",
            offers,
            *SMALL,
            "--figure",
            str(figure),
            "-o",
            "json",
        ]
    )

    captured = capsys.readouterr()
    assert status == 0
    assert "Radeon VII" in captured.err
    said = json.loads(captured.out)
    assert {offer["id"] for offer in said["offers"]} == {"1", "2"}
    assert said["cost"]["usd_per_hour"] <= 1.2
    assert said["cost"]["usd_per_hour"] == pytest.approx(
        said["cost"]["gpu_usd_per_hour"] + said["cost"]["traffic_usd_per_hour"]
    )
    assert 0 < said["objective_rps"] <= said["bound_rps"]
    assert [point["budget_usd_per_hour"] for point in said["front"]] == [1.8]
    assert said["shadow_price"]["dual_rps_per_usd"] >= 0
    plan = plan_from_mapping(said["plan"])
    assert {gpu.node for group in plan.groups for gpu in group.gpus} <= {"1", "2"}
    assert figure.read_bytes().startswith(b"\x89PNG")


def test_rent_shows_the_cheapest_for_a_rate(
    offers: str, capsys: pytest.CaptureFixture[str]
) -> None:
    status = main(["rent", "--rate-at-least", "0.5", "--offers", offers, *SMALL])

    out = capsys.readouterr().out
    assert status == 0
    assert "3090" in out
    assert "A40" not in out
    assert "0.30 $/h" in out


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ((), "either --budget or --rate-at-least"),
        (("--budget", "1", "--rate-at-least", "1"), "either"),
        (("--budget", "0"), "must be > 0"),
        (("--budget", "-2"), "-2"),
        (("--budget", "0.1"), "the cheapest that does costs 0.30 $/h"),
        (("--budget", "1", "--offers", "/no/such"), "/no/such"),
        (("--budget", "1", "--max-nodes", "2"), "within a host"),
        (("--rate-at-least", "1", "--figure", "f.png"), "--figure"),
        (("--rate-at-least", "1", "--objective", "goodput"), "--objective"),
    ],
)
def test_rent_refuses_nonsense_in_one_line(
    offers: str, arguments: tuple[str, ...], named: str, capsys: pytest.CaptureFixture[str]
) -> None:
    status = main(["rent", "--offers", offers, *SMALL, *arguments])

    captured = capsys.readouterr()
    assert (status, captured.out) == (2, "")
    lines = [line for line in captured.err.splitlines() if "Radeon" not in line]
    assert len(lines) == 1
    assert named in lines[0]


def test_rent_refuses_offers_that_are_not_json(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "offers.json"
    file.write_text("[{", encoding="utf-8")

    assert main(["rent", "--budget", "1", "--offers", str(file)]) == 2
    assert "is not JSON" in capsys.readouterr().err


def test_rent_s_sample_is_of_known_gpus() -> None:
    """So that the first try prints no warnings."""
    from thunderserve.cli.planning import rent_report  # noqa: PLC0415 - only this test needs it
    from thunderserve.control.planner.rent import read_offers  # noqa: PLC0415 - as above
    from thunderserve.core.catalogue import catalogue  # noqa: PLC0415 - as above

    offers, skipped = read_offers(rent_report._read_list(None), catalogue("tensor_dense"))
    assert (len(offers), skipped) == (25, ())
