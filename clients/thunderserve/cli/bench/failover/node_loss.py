"""A host is lost under load: its worker and its sidecar end as by SIGKILL."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from itertools import pairwise
from typing import TYPE_CHECKING

from thunderserve.cli.bench.failover.setting import (
    failed_requests,
    promises_broken,
    until,
    wrong_tokens,
)
from thunderserve.client import AsyncClient, ControlClient
from thunderserve.core.fleet import GroupState

if TYPE_CHECKING:
    from collections.abc import Sequence

    from thunderserve.cli.bench.failover.setting import Setting
    from thunderserve.cli.emulated.scene import Scene
    from thunderserve.cli.load.history import RequestRecord
    from thunderserve.core.plan import Plan

__all__ = ["NODE_LOST_KEYS", "node_lost_figures"]

NODE_LOST_KEYS = (
    "node_lost_detect_s",
    "node_lost_reroute_s",
    "node_lost_failed_requests",
    "node_lost_duplicated_tokens",
    "node_lost_requests",
    "node_lost_moved_requests",
    "node_lost_longest_pause_s",
    "node_lost_promises_broken",
)


async def node_lost_figures(setting: Setting) -> dict[str, float]:
    """`NODE_LOST_KEYS`: the host of the most used decode group is lost.

    Detected is when control says that its groups are lost, re-routed when the router follows a plan
    without them. A pause is between two tokens of one stream, in emulated seconds.
    """
    async with setting.staged() as scene, scene.watched():
        loading = asyncio.create_task(scene.load(setting.arrivals(), seed=setting.seed))
        await setting.reached(scene.history)
        detect_s, reroute_s = await _lose(scene, _busiest_node(setting.plan))
        await loading
    history = scene.history
    values: Sequence[float] = (
        detect_s,
        reroute_s,
        failed_requests(history),
        wrong_tokens(history),
        len(history.requests),
        sum(bool(record.report and record.report.retries) for record in history.requests),
        max(map(_longest_pause_s, history.requests)),
        promises_broken(history),
    )
    return dict(zip(NODE_LOST_KEYS, values, strict=True))


async def _lose(scene: Scene, node: str) -> tuple[float, float]:
    """Kill a host's groups; seconds until control has noticed, and from then until the router."""
    async with AsyncExitStack() as stack:
        control = await stack.enter_async_context(ControlClient(scene.control))
        router = await stack.enter_async_context(AsyncClient(scene.router))
        lost: set[str] = set()

        async def noticed() -> bool:
            states = {each.group.id: each.state for each in await control.groups()}
            return all(states[group] is GroupState.LOST for group in lost)

        async def rerouted() -> bool:
            plan = await control.plan((await router.status()).plan_epoch)
            return not any({r.prefill, r.decode} & lost for r in plan.routes)

        killed_s = asyncio.get_running_loop().time()
        lost |= set(await scene.faults.kill_node(node))
        noticed_s = await until(noticed, "the host's loss")
        rerouted_s = await until(rerouted, "routes without the host")
    return noticed_s - killed_s, rerouted_s - noticed_s


def _busiest_node(plan: Plan) -> str:
    """The host of the decode group with most of the routes' weight."""
    weights: dict[str, float] = {}
    for route in plan.routes:
        if route.prefill != route.decode:
            weights[route.decode] = weights.get(route.decode, 0.0) + route.weight
    busiest = max(weights, key=lambda group: weights[group])
    return next(group.gpus[0].node for group in plan.groups if group.id == busiest)


def _longest_pause_s(record: RequestRecord) -> float:
    return max((b - a for a, b in pairwise(record.token_times_s)), default=0.0)
