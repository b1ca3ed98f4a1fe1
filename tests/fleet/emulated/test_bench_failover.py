"""`thunderserve bench failover`: its parts on a fleet at four times its speed."""

from __future__ import annotations

import shutil
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from thunderserve.cli.bench.failover.flips import FLIP_KEYS, flip_figures
from thunderserve.cli.bench.failover.node_loss import NODE_LOST_KEYS, node_lost_figures
from thunderserve.cli.bench.failover.outage import (
    ETCD_KEYS,
    SPLIT_BRAIN_KEYS,
    etcd_figures,
    split_brain_figures,
)
from thunderserve.cli.bench.failover.setting import Setting, failed_requests, wrong_tokens
from thunderserve.cli.bench.failover.steady import STEADY_KEYS, steady_figures
from thunderserve.cli.emulated.options import EmulatedOptions, KvlinkKind
from thunderserve.cli.load.expected import expected_tokens
from thunderserve.cli.load.history import Ending, History
from thunderserve.cli.main import main

if TYPE_CHECKING:
    from thunderserve.control.planner.problem import Problem
    from thunderserve.core.plan import Plan

PROMPT = (20, 21, 22)


@pytest.fixture
def setting(planned: tuple[Problem, Plan]) -> Setting:
    """A short and light load."""
    problem, plan = planned
    problem = replace(problem, workload=problem.workload.with_rate(2.0))
    options = EmulatedOptions(speed=4.0, kvlink=KvlinkKind.MODELLED)
    return Setting(options, problem, plan, load_s=20.0, before_s=12.0)


async def test_lost_host_is_noticed_and_its_requests_go_on(setting: Setting) -> None:
    """Control notices before the lease ends, and every request is answered token-exact."""
    figures = await node_lost_figures(setting)

    assert tuple(figures) == NODE_LOST_KEYS
    assert figures["node_lost_detect_s"] > 0
    assert figures["node_lost_failed_requests"] == 0
    assert figures["node_lost_duplicated_tokens"] == 0
    assert figures["node_lost_promises_broken"] == 0


@pytest.mark.scenarios
async def test_flip_there_and_back_fails_no_request(setting: Setting) -> None:
    """Its seconds are split into what they went to."""
    figures = await flip_figures(setting)

    assert tuple(figures) == FLIP_KEYS
    parts_s = sum(figures[f"flip_{part}_s"] for part in ("drain", "switch", "verify"))
    assert figures["flip_s"] == pytest.approx(parts_s)
    assert figures["flip_verify_s"] > 0
    assert figures["flip_failed_requests"] == 0
    assert figures["flip_promises_broken"] == 0


def test_tokens_after_a_repeated_one_are_wrong() -> None:
    """As are those past the answer's end; what ended badly is a failed request."""
    history = History(lambda: 0.0)
    right = expected_tokens(PROMPT, 3)
    for tokens, ending in (
        (right, Ending.FINISHED),
        ([right[0], *right[:2]], Ending.FINISHED),
        ([*right, right[2]], Ending.FAILED),
    ):
        record = history.submit(PROMPT, 3)
        history.note_tokens(record, tokens)
        history.note_end(record, ending)

    assert wrong_tokens(history) == 2 + 1
    assert failed_requests(history) == 1


def test_part_is_refused_when_there_is_none_of_its_name(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The others are named."""
    assert main(["bench", "failover", "--only", "flips"]) == 2
    assert "node-loss, flip" in capsys.readouterr().err


def test_hour_of_planned_load_flips_nothing(setting: Setting) -> None:
    """As the monitor's code decides it."""
    figures = steady_figures(setting, hour_s=600.0)

    assert tuple(figures) == STEADY_KEYS
    assert figures["steady_hour_flips"] == figures["steady_hour_shifts"] == 0
    assert figures["steady_hour_looks"] == 120


@pytest.mark.scenarios
@pytest.mark.skipif(shutil.which("etcd") is None, reason="no etcd")
async def test_requests_go_on_while_etcd_is_away(setting: Setting) -> None:
    """Three control replicas on three members; changes resume when those are back."""
    figures = await etcd_figures(setting, down_s=3.0)

    assert tuple(figures) == ETCD_KEYS
    assert figures["etcd_outage_failed_requests"] == 0


@pytest.mark.scenarios
@pytest.mark.skipif(shutil.which("etcd") is None, reason="no etcd")
async def test_leader_that_slept_past_its_lease_wins_no_epoch(setting: Setting) -> None:
    """Its successor's plans stand, each published once."""
    figures = await split_brain_figures(setting)

    assert tuple(figures) == SPLIT_BRAIN_KEYS
    assert figures["split_brain_epochs_won"] == 1
    assert figures["split_brain_failed_requests"] == 0
