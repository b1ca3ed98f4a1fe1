"""An hour of constant load, as the monitor would judge it, in virtual time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from thunderserve.cli.load.arrivals import arrivals_of
from thunderserve.control.monitor.monitor import MonitorSettings
from thunderserve.control.monitor.policy import Action, Options, PastFlip, decide
from thunderserve.control.monitor.shift import detect_shift
from thunderserve.control.monitor.window import Window
from thunderserve.control.planner.live_change import weigh_workers
from thunderserve.control.planner.simulator import simulate
from thunderserve.core.finished import FinishedRequest, Outcome
from thunderserve.core.fleet import Capabilities, Worker
from thunderserve.core.plan import Phase

if TYPE_CHECKING:
    from collections.abc import Iterator

    from thunderserve.cli.bench.failover.setting import Setting
    from thunderserve.control.monitor.shift import Shift
    from thunderserve.core.plan import Group

__all__ = ["STEADY_KEYS", "steady_figures"]

STEADY_KEYS = (
    "steady_hour_flips",
    "steady_hour_shifts",
    "steady_hour_looks",
    "steady_hour_requests",
    "steady_hour_is_virtual",
)
_FLIP_S = 10.0


def steady_figures(setting: Setting, hour_s: float = 3600.0) -> dict[str, float]:
    """`STEADY_KEYS`: the window, the detector of shifts, the planner and the policy of the monitor.

    The workload that was planned for arrives, with its bursts. Requests end when the simulator says
    so, the monitor's code looks as often as it does in a fleet, and what it decides to flip is
    taken for flipped. What is virtual is the time, the fleet, and the doing of what was decided.
    """
    hour = _Hour(setting, hour_s)
    hour.run()
    return {
        "steady_hour_flips": len(hour.flips),
        "steady_hour_shifts": hour.shifts,
        "steady_hour_looks": hour.looks,
        "steady_hour_requests": hour.heard,
        "steady_hour_is_virtual": 1,
    }


@dataclass(frozen=True, slots=True)
class _Ended:
    at_s: float
    request: FinishedRequest


class _Hour:
    """The monitor's state, and what it did."""

    def __init__(self, setting: Setting, hour_s: float) -> None:
        self._hour_s = hour_s
        self._setting = setting
        self._rules = MonitorSettings()
        self._window = Window(self._rules.window_s)
        self._planned = setting.problem.workload
        self._phases = {group.id: group.phase for group in setting.plan.groups}
        self._rests_until_s = 0.0
        self.flips: list[PastFlip] = []
        self.shifts = self.looks = self.heard = 0

    def run(self) -> None:
        """All of it."""
        self._window.restart(0.0)
        ended = sorted(_ended(self._setting, self._hour_s), key=lambda each: each.at_s)
        self.heard = len(ended)
        now_s, place = 0.0, 0
        while now_s < self._hour_s:
            now_s += self._rules.interval_s
            while place < len(ended) and ended[place].at_s <= now_s:
                self._window.add([ended[place].request], ended[place].at_s)
                place += 1
            if now_s >= self._rests_until_s:
                self._look(now_s)

    def _look(self, now_s: float) -> None:
        self.looks += 1
        shift = detect_shift(self._planned, self._window.view(now_s), self._rules.sensitivity)
        if shift is None:
            return
        self.shifts += 1
        options = self._options(shift)
        decision = decide(options, self.flips, now_s, self._rules.limits)
        self._rests_until_s = now_s + self._rules.weigh_interval_s
        if decision.action is Action.HOLD:
            return
        self._planned = shift.workload
        if decision.action is Action.FLIP:
            self.flips += [PastFlip(now_s, group, phase) for group, phase in options.flips]
            self._phases |= dict(options.flips)
        self._rests_until_s = now_s + self._rules.limits.cool_down_s
        self._window.restart(now_s)

    def _options(self, shift: Shift) -> Options:
        problem, plan = self._setting.problem, self._setting.plan
        weighed = weigh_workers(
            [_worker(group, plan.model) for group in plan.groups],
            self._phases,
            plan.routes,
            model=problem.model,
            workload=shift.workload,
            slo=problem.slo,
        )
        return Options(
            kept_rps=weighed.kept_rps,
            routed_rps=weighed.routed_rps,
            flipped_rps=weighed.flipped_rps,
            flips=weighed.flips,
            during_rps=weighed.during_rps,
            flipping_s=len(weighed.flips) * _FLIP_S,
        )


def _ended(setting: Setting, hour_s: float) -> Iterator[_Ended]:
    """An hour's requests, when and how they end."""
    trace = arrivals_of(setting.problem.workload, hour_s, setting.seed)
    outcomes = simulate(setting.plan, setting.problem, trace).outcomes
    first_s = trace.requests[0].arrival_s
    for request, ttft_s, tpot_s, e2e_s in zip(
        trace.requests, outcomes.ttft_s, outcomes.tpot_s, outcomes.e2e_s, strict=True
    ):
        lengths = (request.prompt_tokens, request.output_tokens)
        finished = FinishedRequest(0.0, *lengths, ttft_s, tpot_s, Outcome.FINISHED)
        yield _Ended(request.arrival_s - first_s + e2e_s, finished)


def _worker(group: Group, model: str) -> Worker:
    can = Capabilities(
        tuple(Phase),
        flippable=True,
        tp=group.tp,
        pp=group.pp,
        kv_dtype="bfloat16",
        page_size_tokens=64,
        context_tokens=16384,
    )
    node = group.gpus[0].node
    return Worker(group.id, node, group.gpus, "virtual", "virtual", "", model, can)
