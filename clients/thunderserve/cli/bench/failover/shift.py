"""The workload changes from code to conversation, and nobody tells the control plane."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from thunderserve.cli.bench.failover.setting import failed_requests
from thunderserve.cli.emulated.planned import problem_and_plan
from thunderserve.cli.emulated.scene import staged
from thunderserve.cli.load.arrivals import arrivals_of
from thunderserve.cli.load.summary import outcomes_of
from thunderserve.client import ControlClient
from thunderserve.core.fleet import FlipStep
from thunderserve.core.trace import Trace

if TYPE_CHECKING:
    from thunderserve.cli.bench.failover.setting import Setting
    from thunderserve.cli.emulated.scene import Scene
    from thunderserve.control.planner.problem import Problem
    from thunderserve.core.plan import Plan

__all__ = ["SHIFT_KEYS", "ShiftTimes", "shift_figures"]

SHIFT_KEYS = (
    "shift_attainment_x_full_replan",
    "shift_attainment_ratio",
    "full_replan_attainment_ratio",
    "shift_first_plan_s",
    "shift_last_plan_s",
    "shift_flips",
    "shift_failed_requests",
)


@dataclass(frozen=True, slots=True)
class ShiftTimes:
    """How long each workload arrives.

    Attributes:
        before_s: The one that was planned for.
        settle_s: The other one, until its requests are judged.
        judged_s: And while they are.
    """

    before_s: float = 70.0
    settle_s: float = 130.0
    judged_s: float = 60.0


async def shift_figures(
    setting: Setting, planned_for: str = "azure-code", times: ShiftTimes | None = None
) -> dict[str, float]:
    """`SHIFT_KEYS`: a fleet that was planned for one workload serves it, and then the setting's.

    Beside it, the same last requests on a fleet that was planned anew for them: its groups too may
    be others, which would load weights. Plans are counted from the first request of the new kind.
    """
    times = times or ShiftTimes()
    code, code_plan = await asyncio.to_thread(
        problem_and_plan, replace(setting.options, workload=planned_for)
    )
    after = arrivals_of(setting.problem.workload, times.settle_s + times.judged_s, setting.seed)
    both = _one_after_another(arrivals_of(code.workload, times.before_s, setting.seed), after)
    judged = sum(r.arrival_s - after.requests[0].arrival_s > times.settle_s for r in after.requests)
    options = replace(setting.options, workload=planned_for)
    async with staged(options, code, code_plan) as scene, scene.watched():
        await scene.load(both, seed=setting.seed)
        async with ControlClient(scene.control) as control:
            flips = [flip for flip in await control.flips() if flip.step is FlipStep.DONE]
    shifted_s = scene.history.requests[len(both.requests) - len(after.requests)].submitted_s
    plans_s = [p.at_s - shifted_s for p in scene.history.plans if p.observer == "control"]
    plans_s = [at_s for at_s in plans_s if at_s > 0]
    shifted = _attained(scene, judged, setting.problem)
    anew = await _anew(setting, setting.plan, after, judged)
    return {
        "shift_attainment_x_full_replan": shifted / anew if anew else 0.0,
        "shift_attainment_ratio": shifted,
        "full_replan_attainment_ratio": anew,
        "shift_first_plan_s": min(plans_s, default=float("inf")),
        "shift_last_plan_s": max(plans_s, default=float("inf")),
        "shift_flips": len(flips),
        "shift_failed_requests": failed_requests(scene.history),
    }


async def _anew(setting: Setting, plan: Plan, trace: Trace, judged: int) -> float:
    """What a fleet of the full plan attains of the last requests, after as many before them."""
    last = Trace(trace.name, trace.requests[-2 * judged :])
    async with staged(setting.options, setting.problem, plan) as scene:
        await scene.load(last, seed=setting.seed)
    return _attained(scene, judged, setting.problem)


def _one_after_another(first: Trace, second: Trace) -> Trace:
    """The second begins when the first one's last request has come."""
    ahead_s = first.requests[-1].arrival_s - second.requests[0].arrival_s
    later = tuple(replace(r, arrival_s=r.arrival_s + ahead_s) for r in second.requests)
    return Trace(second.name, (*first.requests, *later))


def _attained(scene: Scene, judged: int, problem: Problem) -> float:
    return outcomes_of(scene.history.requests[-judged:]).attainment(problem.slo).slo_ratio
