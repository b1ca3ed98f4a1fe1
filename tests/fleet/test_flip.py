"""A role changed under load."""

from __future__ import annotations

import asyncio
import json
import sys
from typing import TYPE_CHECKING

import pytest

from thunderserve.cli.demo_traffic import Traffic, colocated_answer, keep_asking
from thunderserve.client import AsyncClient, ControlClient, WireMode
from thunderserve.core.errors import PreconditionError
from thunderserve.core.fleet import FlipStep, GroupStatus
from thunderserve.core.plan import Phase

if TYPE_CHECKING:
    from conftest import Fleet  # type: ignore[import-not-found]  # pytest's own path

# Whichever test comes first waits for the fleet.
pytestmark = [pytest.mark.sglang, pytest.mark.etcd, pytest.mark.timeout(300)]

TOKENS = 24


async def test_flip_and_back_under_load_fails_and_repeats_nothing(
    fleet: Fleet, prompts: tuple[tuple[int, ...], ...], capsys: pytest.CaptureFixture[str]
) -> None:
    """0 failed, every token as one engine says it, same process, weights loaded once."""
    asked = prompts[:6]
    expected = {p: await colocated_answer(fleet.reference, p, TOKENS) for p in asked}
    traffic, stopping = Traffic(), asyncio.Event()
    async with AsyncClient(fleet.router) as client, ControlClient(fleet.control) as control:
        before = await _status(control, "g2")
        asker = asyncio.create_task(
            keep_asking(
                client,
                asked,
                max_tokens=TOKENS,
                wire=WireMode.RAW16,
                stopping=stopping,
                traffic=traffic,
            )
        )
        await traffic.wait_more_answers(3, 30)
        there = await control.flip("g2", Phase.PREFILL)
        await traffic.wait_more_answers(6, 60)
        back = await control.flip("g2", Phase.DECODE)
        await traffic.wait_more_answers(3, 30)
        stopping.set()
        await asker
        after = await _status(control, "g2")

    assert traffic.failures == []
    assert (there.step, back.step) == (FlipStep.DONE, FlipStep.DONE)
    assert before.heartbeat is not None
    assert after.heartbeat is not None
    assert after.heartbeat.process_id == before.heartbeat.process_id == fleet.processes["g2"]
    assert after.heartbeat.weight_loads == before.heartbeat.weight_loads == 1
    assert [p for p, answer in traffic.answers if answer.token_ids != expected[p]] == []
    assert "g2" in {
        answer.report.prefill_group
        for _, answer in traffic.answers
        if there.plan_epoch <= answer.report.plan_epoch < back.plan_epoch
    }
    with capsys.disabled():
        sys.stdout.write(f"\nflip: {there.total_s:.2f} s there, {back.total_s:.2f} s back\n")


async def test_flip_is_refused_for_last_prefill(fleet: Fleet) -> None:
    """Nothing changes: the group still prefills at the same epoch."""
    async with ControlClient(fleet.control) as control:
        before = await control.plan()
        with pytest.raises(PreconditionError, match="g0"):
            await control.flip("g0", Phase.DECODE)
        after = await control.plan()

    assert after.epoch == before.epoch


async def test_thunderctl_shows_flips(fleet: Fleet) -> None:
    """Both flips are on record."""
    flips = await asyncio.to_thread(fleet.thunderctl, "get", "flips")

    assert [flip["to_phase"] for flip in flips if flip["group_id"] == "g2"].count("PREFILL") == 1, (
        json.dumps(flips)
    )


async def _status(control: ControlClient, group: str) -> GroupStatus:
    return next(status for status in await control.groups() if status.group.id == group)
