"""A control plane that can be cut off at any write, its workers and its router that can be lost."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from crash_gate import KEYS, CrashClient, CrashWorker, Gate, Moment
from fleet_fakes import MODEL, EqualWeightsPlanner, make_worker

from thunderserve.control.changes import FlipRules
from thunderserve.control.flip_run import FlipLimits
from thunderserve.control.flips import Flips
from thunderserve.control.journal import Journal
from thunderserve.control.leadership import Leadership
from thunderserve.control.observer import Observer
from thunderserve.control.operations import Operations
from thunderserve.control.publisher import Publisher
from thunderserve.control.reconciler import Rules
from thunderserve.control.records import flip_from_value
from thunderserve.control.registry import MemberSession, Registry
from thunderserve.control.steward import Steward
from thunderserve.core.errors import ThunderServeError
from thunderserve.core.fleet import Flip, Router, Worker
from thunderserve.core.plan import Phase, Plan, Route
from thunderserve.runtime.store.memory import MemoryStore

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence

    from thunderserve.control.standing import Standing

LIMITS = FlipLimits(acknowledge_s=0.05, verify_s=0.5, poll_s=0.005, retry_s=0.01)
PHASES = {"g0": Phase.PREFILL, "g1": Phase.PREFILL, "g2": Phase.DECODE, "g3": Phase.DECODE}


class Control:
    """One control process."""

    def __init__(self, gate: Gate, workers: Mapping[str, CrashWorker], rules: FlipRules) -> None:
        store: Any = gate
        planner: Any = EqualWeightsPlanner()
        self.gate = gate
        self.observer = Observer(store, KEYS)
        self.leadership = Leadership(
            store, KEYS.leader, "me", lease_ttl_s=5, on_change=self.observer.nudge
        )
        journal = Journal(store, KEYS, self.leadership, lambda: 1000.0)
        publisher = Publisher(store, KEYS, self.observer, journal, lambda: 1000.0)
        plan_rules = Rules(MODEL, len(PHASES), planner.group_of, planner.routes)
        steward = Steward(self.observer, publisher, self.leadership, plan_rules, settle_s=0)
        by_address = {each.worker.address: each for each in workers.values()}
        self.flips = Flips(
            store,
            KEYS,
            self.observer,
            steward,
            self.leadership,
            journal=journal,
            open_worker=lambda address: CrashClient(gate, by_address[address]),
            clock=lambda: 1000.0,
            new_id=lambda: f"f{gate.count}",
            limits=LIMITS,
            rules=rules,
        )
        self.operations = Operations(
            MODEL,
            observer=self.observer,
            publisher=publisher,
            steward=steward,
            flips=self.flips,
            planner=planner,
            leadership=self.leadership,
            registry=Registry(store, KEYS, lease_ttl_s=5),
            rules=rules,
            settle_s=0,
        )
        loops = (self.observer, self.leadership, steward, self.flips, self.operations)
        self.tasks = [asyncio.create_task(each.run()) for each in loops]


@dataclass
class CrashDesk:
    """Two prefill and two decode groups, a router, and the control process of the moment."""

    store: MemoryStore
    workers: dict[str, CrashWorker]
    router: MemberSession
    rules: FlipRules
    published: list[Plan] = field(default_factory=list)
    flips: tuple[Flip, ...] = ()
    control: Control = field(init=False)

    def __post_init__(self) -> None:
        self.control = self._new_control()

    def _new_control(self) -> Control:
        return Control(Gate(self.store, self.published), self.workers, self.rules)

    @classmethod
    @asynccontextmanager
    async def running(cls, capacity_floor_ratio: float = 0.0) -> AsyncIterator[CrashDesk]:
        """All attached and planned for."""
        before = asyncio.all_tasks()
        store = MemoryStore()
        registry = Registry(store, KEYS, lease_ttl_s=60)  # nobody beats for long
        workers = {}
        for name, phase in PHASES.items():
            worker = make_worker(name, address=f"{name}:1")
            workers[name] = CrashWorker(worker, phase, registry.open(worker))
            workers[name].beat()
        router = registry.open(Router("r0", "i0", "a"))
        rules = FlipRules(capacity_floor_ratio, _served_rps, lambda _: 0.0)
        desk = cls(store, workers, router, rules)
        try:
            await desk.wait_settled()
            yield desk
        finally:
            left = asyncio.all_tasks() - before
            for task in left:
                task.cancel()
            await asyncio.gather(*left, return_exceptions=True)
            await store.close()

    @property
    def standing(self) -> Standing:
        """What the control process of the moment knows."""
        standing = self.control.observer.standing
        assert standing is not None
        return standing

    @property
    def alive(self) -> tuple[str, ...]:
        """Groups whose workers live."""
        return tuple(name for name, worker in self.workers.items() if worker.alive)

    async def apply(self, **phases: Phase) -> Plan:
        """Apply the standing plan with other phases."""
        plan = replace(self.standing.plan, reason="applied by the test", routes=())
        for name, phase in phases.items():
            plan = plan.with_phase(name, phase)
        wanted = {group.id: group.phase for group in plan.groups}
        pairs = [(p, d) for p in wanted for d in wanted if (wanted[p], wanted[d]) == _PAIR]
        routes = tuple(Route(p, d, 1 / len(pairs)) for p, d in pairs)
        return await self.control.operations.apply(
            replace(plan, routes=routes), expected_epoch=0, validate_only=False, request_id=""
        )

    async def change_until(
        self,
        change: Callable[[CrashDesk], Awaitable[object]],
        moment: Moment | None,
        crash: Callable[[CrashDesk], Awaitable[None]],
    ) -> int:
        """Begin a change and crash at a moment; the writes of the process that began it."""
        gate = self.control.gate
        gate.moment, gate.count = moment, 0
        work = asyncio.ensure_future(change(self))
        reached = asyncio.ensure_future(gate.reached.wait())
        async with asyncio.timeout(10):
            await asyncio.wait({work, reached}, return_when=asyncio.FIRST_COMPLETED)
            if reached.done():
                await crash(self)
            gate.opened.set()
            if not gate.dead:
                await asyncio.wait({work})
                error = work.exception()
                assert error is None or isinstance(error, ThunderServeError), error
        return gate.count

    async def replace_control(self) -> None:
        """The process is gone between two instructions; its lease ends, and another one leads."""
        self.control.gate.dead = True
        for worker in self.workers.values():
            if worker.switching:
                worker.seen.clear()  # so that the next leader sees it under way
        for task in self.control.tasks:
            task.cancel()
        key = await self.store.get(KEYS.leader)
        assert key is not None
        await self.store.revoke_lease(key.lease_id)
        self.control = self._new_control()

    async def lose_router(self) -> None:
        """It is killed: nobody acknowledges plans any more."""
        await self.router.leave()

    async def lose_worker(self) -> None:
        """The worker of g3 is killed."""
        self.workers["g3"].alive = False
        await self.workers["g3"].session.leave()

    async def wait_settled(self) -> None:
        """Wait until nothing is under way and everybody alive is routed to."""
        assert await self.control.observer.wait_until(self._is_settled, 10), self.standing
        async with asyncio.timeout(10):
            while True:
                listing = await self.store.list(KEYS.flips)
                self.flips = tuple(flip_from_value(entry.value) for entry in listing.entries)
                if all(flip.ended for flip in self.flips) and self._is_settled():
                    return
                await asyncio.sleep(0.005)

    def _is_settled(self) -> bool:
        standing = self.control.observer.standing
        if standing is None or standing.intent.flipping or standing.intent.pursued:
            return False
        phases = {group.id: group.phase for group in standing.plan.groups}
        routed = {end for route in standing.plan.routes for end in (route.prefill, route.decode)}
        return routed == set(self.alive) and all(
            phases[name] is self.workers[name].phase for name in self.alive
        )


_PAIR = (Phase.PREFILL, Phase.DECODE)


def _served_rps(
    workers: Sequence[Worker], phases: Mapping[str, Phase], workload: object, links: object
) -> float:
    """As much as the fewer of both kinds."""
    del workload, links
    here = [phases[worker.group_id] for worker in workers]
    return float(min(here.count(phase) for phase in _PAIR))


async def _no_crash(desk: CrashDesk) -> None:
    del desk


async def moments_of(change: Callable[[CrashDesk], Awaitable[object]]) -> int:
    """How many writes of plans and flips a change makes when nothing disturbs it."""
    async with CrashDesk.running() as desk:
        return await desk.change_until(change, None, _no_crash)
