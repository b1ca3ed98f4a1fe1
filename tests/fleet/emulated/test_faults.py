"""Faults that no client may notice, one at a time, under load."""

from __future__ import annotations

import asyncio
import math
from typing import TYPE_CHECKING, Any

import pytest

from thunderserve.cli.load.expected import expected_tokens
from thunderserve.cli.load.history import Ending
from thunderserve.cli.load.invariants import violations
from thunderserve.cli.load.player import watch_plans
from thunderserve.core.plan import Phase
from thunderserve.core.trace import sample_trace

if TYPE_CHECKING:
    from thunderserve.cli.emulated.scene import Scene


pytestmark = pytest.mark.scenarios


async def kill_control(scene: Scene) -> None:
    await scene.faults.kill("control")
    await asyncio.sleep(1.5)
    scene.faults.restart("control")


async def freeze_decode(scene: Scene) -> None:
    """Streams of the group stand still, and go on."""
    group = first(scene, Phase.DECODE)
    scene.faults.freeze(group)
    await asyncio.sleep(1.0)
    scene.faults.thaw(group)


async def cut_link(scene: Scene) -> None:
    """Caches cannot go from one prefill group to one decode group; other pairs serve."""
    nodes = {g.id: g.gpus[0].node for g in scene.fleet.plan.groups}
    source, target = nodes[first(scene, Phase.PREFILL)], nodes[first(scene, Phase.DECODE)]
    scene.faults.degrade_link(source, target, math.inf)
    await asyncio.sleep(1.0)
    scene.faults.degrade_link(source, target, 1.0)


async def restart_prefill(scene: Scene) -> None:
    group = first(scene, Phase.PREFILL)
    await scene.faults.kill(group)
    scene.faults.restart(group)


def first(scene: Scene, phase: Phase) -> str:
    return next(group.id for group in scene.fleet.plan.groups if group.phase is phase)


@pytest.mark.parametrize("break_it", [kill_control, freeze_decode, cut_link, restart_prefill])
async def test_clients_notice_nothing(stage: Any, break_it: Any) -> None:
    """Every request is answered to the last token; control and router only see epochs rise."""
    async with stage(speed=5.0) as scene:
        layout = scene.fleet.layout
        watching = asyncio.create_task(
            watch_plans(scene.history, layout.control.address, layout.router.address)
        )
        loading = asyncio.create_task(
            scene.load(sample_trace(scene.fleet.problem.workload, requests=50))
        )
        while not scene.history.requests:  # noqa: ASYNC110 - sent by a task
            await asyncio.sleep(0.01)
        await break_it(scene)
        await loading
        watching.cancel()
    assert {record.ending for record in scene.history.requests} == {Ending.FINISHED}
    assert violations(scene.history, expected_tokens) == ()
    assert {plan.observer for plan in scene.history.plans} == {"control", "router"}
