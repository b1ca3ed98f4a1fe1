"""The monitor acts on what arrives: on the real steward and flips, with foreseen gains made up."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from flip_desk import KEYS, Desk, running_desk

from thunderserve.control.monitor.monitor import Monitor, MonitorSettings
from thunderserve.control.monitor.policy import Action, Limits, Rescheduling
from thunderserve.control.planner.live_change import Weighed
from thunderserve.control.records import standing_from_value
from thunderserve.core.errors import InvalidArgumentError, UnavailableError
from thunderserve.core.finished import FinishedRequest, Outcome
from thunderserve.core.plan import Phase
from thunderserve.core.workload import Workload
from thunderserve.runtime.finished_requests import MemoryRequests

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence

    from thunderserve.core.fleet import Worker
    from thunderserve.core.links import MeasuredLink
    from thunderserve.core.plan import Route

PLANNED = Workload.from_means(rate_rps=1.0, prompt_tokens=100, output_tokens=10)
FLIP = Weighed(2.0, 2.5, 5.0, (("g2", Phase.PREFILL),), 1.0)
ROUTES = Weighed(2.0, 2.5, 2.5, (), 2.5)
NOTHING = Weighed(2.0, 2.0, 2.0, (), 2.0)


class Watched:
    """A monitor of a desk's fleet; its clock moves when it is told to."""

    def __init__(self, desk: Desk, weighed: Weighed, settings: MonitorSettings) -> None:
        self.desk = desk
        self.weighed = weighed
        self.asked: list[Workload | None] = []
        self.now_s = 0.0
        self.requests = MemoryRequests()
        self.monitor = Monitor(
            self.requests,
            PLANNED,
            observer=desk.observer,
            leadership=desk.leadership,
            steward=desk.steward,
            flips=desk.flips,
            weigh=self._weigh,
            settings=settings,
            clock=lambda: self.now_s,
            unix_clock=lambda: 1000.0 + self.now_s,
        )

    def _weigh(
        self,
        workers: Sequence[Worker],
        phases: Mapping[str, Phase],
        routes: Sequence[Route],
        workload: Workload | None,
        links: Sequence[MeasuredLink],
    ) -> Weighed:
        del phases, routes, links
        self.asked.append(workload)
        groups = {worker.group_id for worker in workers}
        return replace(self.weighed, flips=tuple(f for f in self.weighed.flips if f[0] in groups))

    async def hear(self, prompt_tokens: int, count: int = 60, span_s: float = 60.0) -> None:
        """Requests that finish evenly over some seconds."""
        for _ in range(count):
            self.now_s += span_s / count
            self.requests.record(
                FinishedRequest(0.0, prompt_tokens, 10, 0.1, 0.01, Outcome.FINISHED)
            )
            await asyncio.sleep(0)
            await asyncio.sleep(0)

    async def look(self) -> Action | None:
        """What it did."""
        decision = await self.monitor.look()
        return decision.action if decision else None


async def _watched(
    desk: Desk, weighed: Weighed, settings: MonitorSettings | None = None
) -> AsyncIterator[Watched]:
    watched = Watched(desk, weighed, settings or MonitorSettings(interval_s=1e6))
    running = asyncio.create_task(watched.monitor.run())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    await watched.look()  # it knows the fleet now
    yield watched
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


@pytest.fixture
async def desk() -> AsyncIterator[Desk]:
    async with running_desk() as desk:
        desk.client.on_switch = lambda phase: desk.beat("g2", phase)
        yield desk


@pytest.fixture
async def watched(desk: Desk) -> AsyncIterator[Watched]:
    async for each in _watched(desk, FLIP):
        yield each


async def test_monitor_flips_when_the_workload_has_shifted(watched: Watched) -> None:
    """Routes for what arrives, then the flip; the plan remembers what it is for."""
    await watched.hear(prompt_tokens=1000)

    assert await watched.look() is Action.FLIP

    desk = watched.desk
    assert desk.phase_of("g2") is Phase.PREFILL
    assert desk.observer.standing is not None
    workload = desk.observer.standing.intent.workload
    assert workload is not None
    assert workload.prompt.mean == pytest.approx(1000)
    stored = await desk.store.get(KEYS.current)
    assert stored is not None
    assert standing_from_value(stored.value).intent.workload == workload


async def test_monitor_does_nothing_when_what_arrives_is_what_was_planned(
    watched: Watched,
) -> None:
    """Nothing is even weighed."""
    await watched.hear(prompt_tokens=100)
    assert await watched.look() is None
    assert watched.asked == []


async def test_monitor_takes_what_it_acted_on_for_planned(watched: Watched) -> None:
    """The same requests, after the rest that follows a change, are no shift any more."""
    await watched.hear(prompt_tokens=1000)
    await watched.look()
    assert await watched.look() is None  # it rests
    await watched.hear(prompt_tokens=1000)
    await watched.hear(prompt_tokens=1000)
    assert await watched.look() is None
    assert len(watched.asked) == 1


async def test_monitor_publishes_routes_alone_when_no_flip_is_worth_it(watched: Watched) -> None:
    """One new epoch, the phases as they were."""
    watched.weighed = ROUTES
    before = watched.desk.observer.standing
    await watched.hear(prompt_tokens=1000)

    assert await watched.look() is Action.ROUTES

    after = watched.desk.observer.standing
    assert before is not None
    assert after is not None
    assert after.plan.epoch == before.plan.epoch + 1
    assert "prompts of 1000 tokens, not 100" in after.plan.reason
    assert after.plan.groups == before.plan.groups


async def test_monitor_weighs_again_only_after_a_while_when_it_holds(watched: Watched) -> None:
    """A shift that nothing can be done about does not cost a search at every look."""
    watched.weighed = NOTHING
    await watched.hear(prompt_tokens=1000, count=120)
    assert await watched.look() is Action.HOLD
    assert await watched.look() is None
    watched.now_s += 15.0
    assert await watched.look() is Action.HOLD
    assert len(watched.asked) == 2


@pytest.mark.parametrize(
    ("allowed", "action"),
    [(Rescheduling.OFF, Action.HOLD), (Rescheduling.ROUTES, Action.ROUTES)],
)
async def test_monitor_does_no_more_than_it_may(
    desk: Desk, allowed: Rescheduling, action: Action
) -> None:
    """The gain of what it may not do is said."""
    settings = MonitorSettings(allowed=allowed, interval_s=1e6)
    async for watched in _watched(desk, FLIP, settings):
        await watched.hear(prompt_tokens=1000)
        decision = await watched.monitor.look()
        assert decision is not None
        assert decision.action is action
        assert "g2 to PREFILL" in decision.reason
        assert desk.phase_of("g2") is Phase.DECODE


async def test_monitor_goes_on_from_an_operators_plan(watched: Watched) -> None:
    """It was made for what was planned then; its routes do not stand against what arrives now."""
    desk = watched.desk
    standing = desk.observer.standing
    assert standing is not None
    await desk.steward.advance(lambda intent: replace(intent, applied=standing.plan))
    await watched.hear(prompt_tokens=1000)
    assert await watched.look() is Action.FLIP
    assert desk.observer.standing is not None
    assert desk.observer.standing.intent.applied is None


async def test_monitor_weighs_flips_when_the_fleet_has_changed(watched: Watched) -> None:
    """A group is lost: routes follow at once by themselves, flips when they are worth it."""
    watched.weighed = NOTHING
    await watched.desk.sessions["g1"].leave()
    await watched.desk.wait(lambda: watched.desk.pairs() == {("g0", "g2")})
    decision = await watched.monitor.look()
    assert decision is not None
    assert watched.asked == [None]


async def test_monitor_does_nothing_while_another_replica_leads(watched: Watched) -> None:
    """Its own window goes on filling."""
    await watched.hear(prompt_tokens=1000)
    await watched.desk.leadership.resign()
    assert await watched.look() is None
    assert watched.asked == []


async def test_monitor_stops_at_a_flip_that_fails(watched: Watched) -> None:
    """What was done stays; it is looked at again after the rest."""

    async def fail(phase: Phase) -> None:
        raise UnavailableError(f"not idle, still not in {phase}")

    watched.desk.client.on_switch = fail
    await watched.hear(prompt_tokens=1000)
    assert await watched.look() is Action.FLIP
    assert watched.desk.phase_of("g2") is Phase.DECODE
    assert watched.desk.pairs() == {("g0", "g1"), ("g0", "g2")}


async def test_monitor_flips_no_more_often_than_is_allowed(desk: Desk) -> None:
    """Flips that others made count too."""
    settings = MonitorSettings(interval_s=1e6, limits=Limits(flips_per_hour=1))
    async for watched in _watched(desk, FLIP, settings):
        await desk.flip()
        watched.weighed = replace(FLIP, flips=(("g2", Phase.DECODE),), flipped_rps=50.0)
        await watched.hear(prompt_tokens=1000)
        assert await watched.look() is Action.ROUTES


@pytest.mark.parametrize("name", ["window_s", "interval_s", "drain_timeout_s"])
def test_settings_refuse_nonsense(name: str) -> None:
    """The error names the setting."""
    with pytest.raises(InvalidArgumentError, match=name):
        MonitorSettings(**{name: 0.0})
