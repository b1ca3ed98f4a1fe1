"""A group changes its phase under load, and changes back."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from thunderserve.cli.bench.failover.setting import failed_requests, promises_broken
from thunderserve.cli.load.summary import outcomes_of
from thunderserve.client import ControlClient
from thunderserve.core.errors import UnavailableError
from thunderserve.core.fleet import FlipStep
from thunderserve.core.plan import Phase

if TYPE_CHECKING:
    from thunderserve.cli.bench.failover.setting import Setting
    from thunderserve.cli.load.history import History
    from thunderserve.core.fleet import Flip
    from thunderserve.core.plan import Plan
    from thunderserve.core.slo import Slo

__all__ = ["FLIP_KEYS", "flip_figures"]

FLIP_KEYS = (
    "flip_s",
    "flip_drain_s",
    "flip_switch_s",
    "flip_verify_s",
    "flip_failed_requests",
    "flip_requests",
    "flip_moved_requests",
    "flip_attainment_ratio",
    "flip_attainment_before_ratio",
    "flip_promises_broken",
)
_DRAIN_TIMEOUT_S = 10.0


async def flip_figures(setting: Setting) -> dict[str, float]:
    """`FLIP_KEYS`: the least used decode group goes to prefill and back.

    Seconds are those of the slower of the two flips; what is neither draining nor switching is
    verifying, with the routes before it. Attainment is of the requests that came during a flip, and
    of those that came before the first.
    """
    group = _least_used(setting.plan)
    spans: list[tuple[float, float]] = []
    flips = []
    async with (
        setting.staged() as scene,
        scene.watched(),
        ControlClient(scene.control, timeout_s=120.0) as control,
    ):
        loading = asyncio.create_task(scene.load(setting.arrivals(), seed=setting.seed))
        await setting.reached(scene.history)
        for phase in (Phase.PREFILL, Phase.DECODE):
            began_s = scene.history.now_s()
            flips.append(await _flip(control, group, phase))
            spans.append((began_s, scene.history.now_s()))
        await loading
    history, slo = scene.history, setting.problem.slo
    slowest = max(flips, key=lambda flip: flip.total_s)
    return {
        "flip_s": slowest.total_s,
        "flip_drain_s": slowest.drain_s,
        "flip_switch_s": slowest.switch_s,
        "flip_verify_s": slowest.total_s - slowest.drain_s - slowest.switch_s,
        "flip_failed_requests": failed_requests(history),
        "flip_requests": len(history.requests),
        "flip_moved_requests": sum(bool(r.report and r.report.retries) for r in history.requests),
        "flip_attainment_ratio": _attained(history, spans, slo),
        "flip_attainment_before_ratio": _attained(history, [(0.0, spans[0][0])], slo),
        "flip_promises_broken": promises_broken(history),
    }


async def _flip(control: ControlClient, group: str, phase: Phase) -> Flip:
    flip = await control.flip(group, phase, drain_timeout_s=_DRAIN_TIMEOUT_S)
    if flip.step is not FlipStep.DONE:
        raise UnavailableError(f"{group} did not flip to {phase}: {flip.failure}")
    return flip


def _least_used(plan: Plan) -> str:
    """The decode group with the least of the routes' weight."""
    weights = {group.id: 0.0 for group in plan.groups if group.phase is Phase.DECODE}
    for route in plan.routes:
        if route.decode in weights:
            weights[route.decode] += route.weight
    return min(weights, key=lambda group: weights[group])


def _attained(history: History, spans: list[tuple[float, float]], slo: Slo) -> float:
    """Share that met every bound of those that came in the spans; 1 of none."""
    during = [r for r in history.requests if any(a <= r.submitted_s <= b for a, b in spans)]
    return outcomes_of(during).attainment(slo).slo_ratio if during else 1.0
