"""What a control process reaches the world through, and can be cut off from."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from thunderserve.control.records import Keys, standing_from_value
from thunderserve.control.registry import MemberSession
from thunderserve.core.errors import UnavailableError
from thunderserve.core.fleet import Heartbeat, Switched, Worker, WorkerStatus
from thunderserve.core.plan import Phase, Plan
from thunderserve.runtime.store.base import Put
from thunderserve.runtime.store.memory import MemoryStore

if TYPE_CHECKING:
    from collections.abc import Sequence

KEYS = Keys("test")
_STEPS = (KEYS.current, KEYS.flips)
SWITCH_S = 0.02  # longer than control takes to look, so that it records what it sees


@dataclass(frozen=True, slots=True)
class Moment:
    """Before or after the write of that index."""

    index: int
    after: bool


@dataclass
class Gate:
    """One control process's way to the world: it stops at a moment, and for good once dead.

    Attributes:
        count: Writes of plans and flips since `moment` was last set.
        published: Every plan that was written through it.
    """

    store: MemoryStore
    published: list[Plan]
    moment: Moment | None = None
    count: int = 0
    dead: bool = False
    reached: asyncio.Event = field(default_factory=asyncio.Event)
    opened: asyncio.Event = field(default_factory=asyncio.Event)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.store, name)

    async def commit(self, compares: Any, writes: Sequence[Any]) -> int | None:
        """Count and stop where it is told to."""
        await self.check()
        if not any(isinstance(w, Put) and w.key.startswith(_STEPS) for w in writes):
            return await self.store.commit(compares, writes)
        index, self.count = self.count, self.count + 1
        await self._stop_at(Moment(index, after=False))
        revision = await self.store.commit(compares, writes)
        if revision is not None:
            self.published += [
                standing_from_value(write.value).plan
                for write in writes
                if isinstance(write, Put) and write.key == KEYS.current
            ]
        await self._stop_at(Moment(index, after=True))
        return revision

    async def check(self) -> None:
        """A dead process does nothing more."""
        if self.dead:
            await asyncio.Event().wait()

    async def _stop_at(self, moment: Moment) -> None:
        if moment == self.moment:
            self.reached.set()
            await self.opened.wait()
            await self.check()


@dataclass
class CrashWorker:
    """A worker without an engine; whoever controls it, it switches to its end.

    Attributes:
        seen: Until it is set, a switch goes on: by somebody who asks how the worker is.
    """

    worker: Worker
    phase: Phase
    session: MemberSession
    alive: bool = True
    switching: bool = False
    seen: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.seen.set()

    def beat(self) -> None:
        """Say the phase."""
        self.session.beat(Heartbeat(phase=self.phase))

    async def switch(self, phase: Phase) -> None:
        """Change it."""
        self.switching = True
        await asyncio.sleep(SWITCH_S)
        await self.seen.wait()
        self.switching = False
        if self.alive:
            self.phase = phase
            self.beat()


@dataclass
class CrashClient:
    """How one control process speaks to one worker."""

    gate: Gate
    of: CrashWorker

    async def status(self) -> WorkerStatus:
        """How it says it is."""
        await self._reach()
        name = self.of.worker.group_id
        self.of.seen.set()
        return WorkerStatus(name, "i0", self.of.phase, 0, 1, 1, self.of.switching)

    async def switch_phase(
        self, phase: Phase, *, drain_timeout_s: float, plan_epoch: int
    ) -> Switched:
        """Change the phase; the worker ends it also without us."""
        del drain_timeout_s, plan_epoch
        await self._reach()
        await asyncio.shield(asyncio.ensure_future(self.of.switch(phase)))
        return Switched(await self.status(), drain_s=0.5, switch_s=0.25)

    async def close(self) -> None:
        """Nothing to free."""

    async def _reach(self) -> None:
        await self.gate.check()
        if not self.of.alive:
            raise UnavailableError(f"{self.of.worker.group_id} does not answer")
