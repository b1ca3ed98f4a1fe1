"""Comparing plans, going back, rehearsing, watching, against a fake control plane."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from typing import TYPE_CHECKING

from thunderserve.admin.session import Session
from thunderserve.console.output import OutputFormat, plain
from thunderserve.console.views import flips_table
from thunderserve.core.errors import UnavailableError
from thunderserve.core.plan import Phase
from thunderserve.core.plan_file import plan_to_mapping

if TYPE_CHECKING:
    from pathlib import Path

    import pytest
    from conftest import Thunderctl  # type: ignore[import-not-found]  # pytest's own path
    from operated_control import FakeControl


async def test_plan_diff_says_what_changes_and_why_it_is_better(
    thunderctl: Thunderctl, control: FakeControl, control_address: str, tmp_path: Path
) -> None:
    """Phases, weights, the model's figures of both, and what flips took so far."""
    groups = tuple(
        replace(group, phase=Phase.PREFILL) if group.id == "g2" else group
        for group in control.plan.groups
    )
    routes = tuple(
        replace(route, prefill="g2", decode="g1") if route.decode == "g2" else route
        for route in control.plan.routes
    )
    file = tmp_path / "plan.json"
    other = replace(control.plan, groups=groups, routes=routes)
    file.write_text(json.dumps(plan_to_mapping(other)), encoding="utf-8")

    ended = await thunderctl("--control", control_address, "plan", "diff", str(file))

    assert ended.status == 0, ended.err
    lines = [line.split() for line in ended.out.splitlines()]
    assert ["g2", "DECODE", "PREFILL"] in lines
    assert ["g0", "g2", "0.7000", "0.0000"] in lines
    assert ["goodput_rps", "2", "4"] in lines
    assert ended.out.splitlines()[-1] == (
        "2 routes change; 1 flips (g2 to PREFILL, about 1.0 s), no weights loaded; "
        "2 req/s more in time (100.0%)"
    )


async def test_plan_diff_says_so_when_nothing_would_change(
    thunderctl: Thunderctl, control_address: str
) -> None:
    """A published plan is named by its epoch; naming nothing is an error."""
    same = await thunderctl("--control", control_address, "plan", "diff", "--epoch", "7")
    nothing = await thunderctl("--control", control_address, "plan", "diff")

    assert same.out.splitlines()[-1] == "the plans serve alike"
    assert nothing.status == 2
    assert "a plan file or with --epoch" in nothing.err


async def test_rollback_applies_a_former_plan_with_its_reason(
    thunderctl: Thunderctl, control: FakeControl, control_address: str
) -> None:
    """The same checks as for a file, and a dry run that publishes nothing."""
    ended = await thunderctl("--control", control_address, "plan", "rollback", "7")
    dry = await thunderctl("--control", control_address, "plan", "rollback", "7", "--dry-run")

    asked, applied, _, rehearsed = control.requests
    assert (ended.status, dry.status) == (0, 0)
    assert ended.err == "published as epoch 8\n"
    assert asked.epoch == 7
    assert (applied.plan.reason, applied.validate_only) == ("rolled back to plan 7", False)
    assert rehearsed.validate_only
    assert dry.err == "plan 7 can be rolled back to\n"


async def test_drain_changes_nothing_when_it_is_a_dry_run(
    thunderctl: Thunderctl, control: FakeControl, control_address: str
) -> None:
    """The answer is how the group would stand."""
    drained = await thunderctl("--control", control_address, "drain", "g1", "--dry-run")
    back = await thunderctl("--control", control_address, "undrain", "g1", "--dry-run")

    assert [request.validate_only for request in control.requests] == [True, True]
    assert "DRAINED" in drained.out
    assert drained.err == "g1 can be drained, and would stand like this; nothing was changed\n"
    assert "put back" in back.err


async def test_top_shows_the_fleet_once_when_stdout_is_no_terminal(
    thunderctl: Thunderctl, control_address: str
) -> None:
    """Groups by phase with their share and load, and what happened last."""
    ended = await thunderctl("--control", control_address, "top")

    lines = ended.out.splitlines()
    assert "plan 7" in lines[0]
    assert lines[1] == "1 lost, 1 serving · 2 requests in flight"
    assert any(line.split()[:5] == ["g0", "PREFILL", "SERVING", "100.0%", "2"] for line in lines)
    assert any(" PLAN " in line for line in lines)


async def test_watch_shows_again_what_has_changed_and_outlives_a_failure(
    control: FakeControl, control_address: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """The same answer is not written twice."""
    session = Session(control=control_address, output=OutputFormat.JSON, timeout_s=5.0)
    watching = asyncio.create_task(
        session.watch(lambda client: client.flips(), flips_table, plain, interval_s=0.01)
    )
    shown = ""
    for change in ("first", "second"):
        control.flip = replace(control.flip, failure=change)
        async with asyncio.timeout(5):
            while change not in shown:
                shown += capsys.readouterr().out
                await asyncio.sleep(0.01)
    control.failure = UnavailableError("no leader")
    async with asyncio.timeout(5):
        while "no leader; asking again" not in capsys.readouterr().err:  # noqa: ASYNC110 - a task writes it
            await asyncio.sleep(0.01)
    watching.cancel()
    await asyncio.wait([watching])

    assert (shown.count("first"), shown.count("second")) == (1, 1)
