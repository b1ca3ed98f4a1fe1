"""A decode group is killed under load."""

from __future__ import annotations

import asyncio
from typing import Any

from thunderserve.cli.load.expected import expected_tokens
from thunderserve.cli.load.history import Ending
from thunderserve.cli.load.invariants import violations
from thunderserve.cli.load.player import watch_plans
from thunderserve.core.plan import Phase
from thunderserve.core.trace import sample_trace


async def test_killed_decode_group_loses_and_repeats_nothing(stage: Any) -> None:
    """What had no token yet succeeds elsewhere, what had some goes on token-exact."""
    async with stage(speed=10.0) as scene:
        victim = next(g.id for g in scene.fleet.plan.groups if g.phase is Phase.DECODE)
        layout = scene.fleet.layout
        watching = asyncio.create_task(
            watch_plans(scene.history, layout.control.address, layout.router.address)
        )
        loading = asyncio.create_task(
            scene.load(sample_trace(scene.fleet.problem.workload, requests=100))
        )
        await until(lambda: any(len(r.tokens) > 1 for r in scene.history.requests[10:]))
        epoch = scene.history.plans[-1].epoch
        killed_s = await scene.faults.kill(victim)
        await loading
        await until(lambda: scene.history.plans[-1].epoch > epoch)
        watching.cancel()

    assert {record.ending for record in scene.history.requests} == {Ending.FINISHED}
    assert violations(scene.history, expected_tokens) == ()
    moved = [record for record in scene.history.requests if record.report.retries]
    assert any(record.first_token_s < killed_s for record in moved)
    assert all(record.report.decode_group != victim for record in moved)


async def until(condition: Any) -> None:
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110 - many tasks may bring it about
            await asyncio.sleep(0.01)
