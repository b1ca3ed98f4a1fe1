"""Watches the workload and the fleet, and moves phases and routes when that is worth it."""

from __future__ import annotations

import asyncio
import logging
import math
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Protocol

from thunderserve.control.inventory import links_of
from thunderserve.control.monitor.policy import (
    Action,
    Decision,
    Limits,
    Options,
    PastFlip,
    Rescheduling,
    decide,
)
from thunderserve.control.monitor.shift import Sensitivity, detect_shift
from thunderserve.control.monitor.window import Window
from thunderserve.core.errors import InvalidArgumentError, ThunderServeError
from thunderserve.core.fleet import FlipStep
from thunderserve.core.workload import Workload

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from thunderserve.control.flips import Flips
    from thunderserve.control.leadership import Leadership
    from thunderserve.control.observer import Observer
    from thunderserve.control.planner.live_change import Weighed
    from thunderserve.control.standing import Standing
    from thunderserve.control.steward import Steward
    from thunderserve.core.fleet import Worker
    from thunderserve.core.links import MeasuredLink
    from thunderserve.core.plan import Phase, Route
    from thunderserve.runtime.finished_requests import RequestFeed

__all__ = ["Monitor", "MonitorSettings", "Weigh"]

_log = logging.getLogger(__name__)

_FIRST_GUESS_FLIP_S = 5.0


@dataclass(frozen=True, slots=True)
class MonitorSettings:
    """How closely it looks and how readily it acts.

    Attributes:
        allowed: What it may do.
        window_s: The newest requests that it looks at.
        interval_s: Between looks.
        weigh_interval_s: Changes are weighed no more often: that takes processor time.
        drain_timeout_s: For requests in flight in a group that flips.
    """

    allowed: Rescheduling = Rescheduling.FLIPS
    window_s: float = 60.0
    interval_s: float = 5.0
    weigh_interval_s: float = 15.0
    drain_timeout_s: float = 30.0
    sensitivity: Sensitivity = field(default_factory=Sensitivity)
    limits: Limits = field(default_factory=Limits)

    def __post_init__(self) -> None:
        for name in ("window_s", "interval_s", "weigh_interval_s", "drain_timeout_s"):
            if getattr(self, name) <= 0:
                raise InvalidArgumentError(f"{name} is {getattr(self, name)}; it must be > 0")


class Weigh(Protocol):
    """What new routes and flips would bring; see `planner.live_change.weigh_workers`."""

    def __call__(
        self,
        workers: Sequence[Worker],
        phases: Mapping[str, Phase],
        routes: Sequence[Route],
        workload: Workload | None,
        links: Sequence[MeasuredLink],
    ) -> Weighed:
        """Weigh them for a workload; None is the configured one."""


@dataclass(frozen=True, slots=True)
class _Occasion:
    """Why the plan is weighed again; the workload is what it is to serve from now on."""

    reason: str
    workload: Workload | None


class Monitor:
    """Looks every few seconds while this replica leads.

    Args:
        feed: Finished requests.
        planned: The workload that the control plane was configured with.
        observer: What is known.
        leadership: Only the leader acts.
        steward: Publishes routes.
        flips: Changes phases.
        weigh: Foresees what changes bring.
        settings: How closely and how readily.
        clock: Monotonic seconds.
        unix_clock: Seconds since 1970, for flips that another replica made.
    """

    def __init__(
        self,
        feed: RequestFeed,
        planned: Workload,
        *,
        observer: Observer,
        leadership: Leadership,
        steward: Steward,
        flips: Flips,
        weigh: Weigh,
        settings: MonitorSettings,
        clock: Callable[[], float],
        unix_clock: Callable[[], float],
    ) -> None:
        self._feed = feed
        self._planned = planned
        self._observer = observer
        self._leadership = leadership
        self._steward = steward
        self._flips = flips
        self._weigh = weigh
        self._settings = settings
        self._clock = clock
        self._unix_clock = unix_clock
        self._window = Window(settings.window_s)
        self._rests_until_s = -math.inf
        self._fleet: frozenset[tuple[str, str]] | None = None
        self._said = ""

    async def run(self) -> None:
        """Listen and look, for ever."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._listen())
            tasks.create_task(self._look_for_ever())

    async def look(self) -> Decision | None:
        """Look once, and act; None when there is no occasion to."""
        standing = self._observer.standing
        if standing is None or not self._leadership.leads:
            self._fleet = None
            return None
        if self._clock() < self._rests_until_s:
            return None
        occasion = self._occasion(standing)
        if occasion is None:
            return None
        options, past = await self._options(standing, occasion), await self._past_flips()
        decision = decide(options, past, self._clock(), self._settings.limits)
        decision = self._allowed(decision)
        self._rests_until_s = self._clock() + self._settings.weigh_interval_s
        self._say(occasion, decision)
        await self._act(decision, options, occasion)
        return decision

    async def _listen(self) -> None:
        self._window.restart(self._clock())
        async for batch in self._feed.batches():
            self._window.add(batch, self._clock())

    async def _look_for_ever(self) -> None:
        while True:
            await asyncio.sleep(self._settings.interval_s)
            try:
                await self.look()
            except ThunderServeError as error:
                _log.warning("phases and routes were not looked at: %s", error)

    def _occasion(self, standing: Standing) -> _Occasion | None:
        """The workload has shifted, or the fleet is another one than at the last look."""
        planned = standing.intent.workload or self._planned
        view = self._window.view(self._clock())
        if shift := detect_shift(planned, view, self._settings.sensitivity):
            return _Occasion(shift.reason, shift.workload)
        fleet = frozenset((w.group_id, w.instance_id) for w in standing.view.workers)
        before, self._fleet = self._fleet, fleet
        if before is None or before == fleet:
            return None
        self._window.restart(self._clock())
        changed = ", ".join(sorted({group for group, _ in before ^ fleet}))
        return _Occasion(f"the fleet has changed: {changed}", standing.intent.workload)

    async def _options(self, standing: Standing, occasion: _Occasion) -> Options:
        away = {*standing.intent.drained, standing.intent.flipping}
        workers = [w for w in standing.view.workers if w.group_id not in away]
        ids = {worker.group_id for worker in workers}
        phases = {g.id: g.phase for g in standing.plan.groups if g.id in ids}
        links = links_of(self._observer.inventory)
        weighed = await asyncio.to_thread(
            self._weigh, workers, phases, standing.plan.routes, occasion.workload, links
        )
        return Options(
            kept_rps=weighed.kept_rps,
            routed_rps=weighed.routed_rps,
            flipped_rps=weighed.flipped_rps,
            flips=weighed.flips,
            during_rps=weighed.during_rps,
            flipping_s=len(weighed.flips) * await self._usual_flip_s(),
        )

    async def _usual_flip_s(self) -> float:
        """What flips of this fleet took; a guess before the first."""
        took_s = [flip.total_s for flip in await self._flips.all() if flip.step is FlipStep.DONE]
        return max(took_s[:5], default=_FIRST_GUESS_FLIP_S)

    async def _past_flips(self) -> tuple[PastFlip, ...]:
        now_s, now_unix_s = self._clock(), self._unix_clock()
        return tuple(
            PastFlip(now_s - (now_unix_s - flip.created_unix_s), flip.group_id, flip.to_phase)
            for flip in await self._flips.all()
            if flip.step is FlipStep.DONE
        )

    def _allowed(self, decision: Decision) -> Decision:
        if decision.action is Action.HOLD:
            return decision
        if self._settings.allowed is Rescheduling.OFF:
            return Decision(Action.HOLD, f"rescheduling is off ({decision.reason})")
        if self._settings.allowed is Rescheduling.ROUTES:
            return Decision(Action.ROUTES, f"flips are off ({decision.reason})")
        return decision

    def _say(self, occasion: _Occasion, decision: Decision) -> None:
        """Once for each thing that there is to say, not at every look."""
        said = f"{decision.action}: {decision.reason}"
        if said != self._said:
            _log.info("%s; %s", occasion.reason, said)
        self._said = said

    async def _act(self, decision: Decision, options: Options, occasion: _Occasion) -> None:
        if decision.action is Action.HOLD:
            return
        # A plan that an operator applied was made for what was planned then.
        await self._steward.advance(
            lambda intent: replace(
                intent, applied=None, workload=occasion.workload or intent.workload
            ),
            reason=f"{occasion.reason}; {decision.reason}",
        )
        try:
            if decision.action is Action.FLIP:
                await self._flip(options.flips)
        finally:
            now_s = self._clock()
            self._rests_until_s = now_s + self._settings.limits.cool_down_s
            self._window.restart(now_s)

    async def _flip(self, flips: Sequence[tuple[str, Phase]]) -> None:
        """One after another, as ordered; the first that fails ends it, and what is done stays."""
        for group_id, phase in flips:
            flip = await self._flips.flip(
                group_id, phase, drain_timeout_s=self._settings.drain_timeout_s
            )
            if flip.step is not FlipStep.DONE:
                _log.warning("%s did not flip to %s: %s", group_id, phase, flip.failure)
                return
