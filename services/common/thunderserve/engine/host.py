"""One engine and its current phase: legs run in the matching phase, a switch drains them first."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, TypeVar

from thunderserve.core.errors import (
    ConflictError,
    EngineBusyError,
    EngineFailedError,
    PreconditionError,
)
from thunderserve.core.fleet import Heartbeat
from thunderserve.core.plan import Phase
from thunderserve.engine.legs import Legs
from thunderserve.engine.states import HostState, PrefillEvent, SwitchReport

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Coroutine
    from contextlib import AbstractContextManager

    from thunderserve.core.links import LinkMeasurement
    from thunderserve.core.request import DecodeLeg, PrefillLeg, TokenChunk
    from thunderserve.engine.engine import Engine, KvLink
    from thunderserve.engine.legs import Leg

__all__ = ["EngineHost"]

_log = logging.getLogger(__name__)

_Result = TypeVar("_Result")

BUSY_RETRY_S = 0.05
# Heartbeats tell what the sidecar measured so long ago at most.
LINKS_INTERVAL_S = 1.0


class EngineHost:
    """Runs the legs of requests on one engine, and changes its phase.

    Args:
        engine: Not started yet.
        kvlink: The sidecar; None where the engine only ever runs colocated.
        clock: Seconds that never go back.
        let_go_s: An engine that has answered or lost its last request may need so long to let go.
    """

    def __init__(
        self,
        engine: Engine,
        kvlink: KvLink | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
        let_go_s: float = 5.0,
    ) -> None:
        self._engine = engine
        self._kvlink = kvlink
        self._clock = clock
        self._let_go_s = let_go_s
        self._phase = Phase.COLOCATED
        self._state = HostState.STOPPED
        self._legs = Legs()
        self._plan_epoch = 0
        self._links: tuple[LinkMeasurement, ...] = ()
        self._listeners: list[Callable[[], None]] = []
        self._failure: asyncio.Future[EngineFailedError] | None = None
        self._tasks: set[asyncio.Task[Any]] = set()

    @property
    def engine(self) -> Engine:
        """The engine it hosts."""
        return self._engine

    @property
    def phase(self) -> Phase:
        """The current phase; during a switch still the old one."""
        return self._phase

    @property
    def state(self) -> HostState:
        """Whether it takes legs."""
        return self._state

    @property
    def in_flight(self) -> int:
        """Legs that have not ended."""
        return len(self._legs)

    @property
    def plan_epoch(self) -> int:
        """The highest plan epoch seen."""
        return self._plan_epoch

    @property
    def heartbeat(self) -> Heartbeat:
        """What the control plane is told of this worker."""
        return Heartbeat(
            plan_epoch=self._plan_epoch,
            in_flight=len(self._legs),
            phase=self._phase,
            weight_loads=self._engine.weight_loads,
            process_id=os.getpid(),
            links=self._links,
        )

    def on_change(self, listener: Callable[[], None]) -> None:
        """Call `listener` whenever the state, the phase or the plan's epoch has changed."""
        self._listeners.append(listener)

    def observe_epoch(self, epoch: int) -> None:
        """Note a plan's epoch; lower ones than seen are ignored."""
        if epoch > self._plan_epoch:
            self._plan_epoch = epoch
            self._notify()

    async def start(self, phase: Phase) -> None:
        """Start the engine and serve `phase`; raises EngineFailedError when it does not come up."""
        self._failure = asyncio.get_running_loop().create_future()
        await self._engine.start(phase)
        self._phase = phase
        self._spawn(self._watch_engine())
        if self._kvlink is not None:
            self._spawn(self._watch_links(self._kvlink))
        self._enter(HostState.SERVING)

    async def wait_failed(self) -> EngineFailedError:
        """Why the engine was lost; waits for ever while it is well."""
        if self._failure is None:
            raise PreconditionError("the host was not started")
        return await asyncio.shield(self._failure)

    async def stop(self) -> None:
        """Take no more legs and end the engine; safe to call twice."""
        self._state = HostState.STOPPED
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._engine.stop()

    async def prefill(self, leg: PrefillLeg) -> AsyncGenerator[PrefillEvent, None]:
        """The first token as soon as it is known, then what the transfer of the cache took.

        Raises:
            PreconditionError: Not in phase PREFILL now.
            TransferError: The decode side did not take the cache.
        """
        with self._leg(Phase.PREFILL) as running:
            async with aclosing(running.follow(self._prefilled(leg))) as events:
                async for event in events:
                    yield event

    async def decode(self, leg: DecodeLeg) -> AsyncGenerator[TokenChunk, None]:
        """Every token of the answer, the first one included.

        Raises:
            PreconditionError: Not in phase DECODE, or COLOCATED for a leg without transfer.
            TransferError: The cache did not arrive.
        """
        with self._leg(Phase.COLOCATED if leg.transfer is None else Phase.DECODE) as running:
            async with aclosing(running.follow(self._engine.decode(leg))) as chunks:
                async for chunk in chunks:
                    yield chunk

    async def _prefilled(self, leg: PrefillLeg) -> AsyncGenerator[PrefillEvent, None]:
        kvlink, room = self._kvlink, leg.transfer.room
        if kvlink is None:
            raise PreconditionError("this worker has no kvlink sidecar; it serves COLOCATED alone")
        await kvlink.announce(room, leg.transfer.wire_mode)
        async with aclosing(self._engine.prefill(leg)) as tokens:
            async for token in tokens:
                yield token
        yield await kvlink.report(room)

    async def switch(
        self, phase: Phase, *, drain_timeout_s: float, plan_epoch: int
    ) -> SwitchReport:
        """Drain the legs in flight, then change the engine's phase; the weights stay.

        It runs to its end even when the caller goes away; the heartbeat tells how it ended.

        Args:
            phase: The new one; the present one is no work.
            drain_timeout_s: How long legs in flight may take; those that take longer end with
                UnavailableError, and routers go on with them elsewhere.
            plan_epoch: The plan that asks for it.

        Raises:
            ConflictError: A higher epoch was seen.
            PreconditionError: Not serving, or the engine cannot change its phase so.
            EngineBusyError: The engine did not become idle; unchanged, and serving as before.
            EngineFailedError: The engine is lost.
        """
        self._check_switch(phase, plan_epoch)
        self.observe_epoch(plan_epoch)
        if phase is self._phase:
            return SwitchReport()
        self._enter(HostState.SWITCHING)
        return await asyncio.shield(self._spawn(self._switch(phase, drain_timeout_s)))

    def _check_switch(self, phase: Phase, plan_epoch: int) -> None:
        if plan_epoch < self._plan_epoch:
            raise ConflictError(
                f"a switch at epoch {plan_epoch} is stale: this worker has seen {self._plan_epoch}"
            )
        if self._state is not HostState.SERVING:
            raise PreconditionError(f"this worker is {self._state}, not SERVING")
        can = self._engine.capabilities
        if phase is not self._phase and not (can.flippable and phase in can.phases):
            raise PreconditionError(
                f"this engine (tp {can.tp}, pp {can.pp}) cannot change from {self._phase} "
                f"to {phase}; it was started for {', '.join(can.phases)}"
            )

    async def _switch(self, phase: Phase, drain_timeout_s: float) -> SwitchReport:
        started = self._clock()
        try:
            await self._drain(phase, drain_timeout_s)
            drained = self._clock()
            await self._switch_engine(phase, deadline=drained + self._let_go_s)
        except (EngineBusyError, PreconditionError) as error:
            _log.warning("still %s, not %s: %s", self._phase, phase, error)
            self._enter(HostState.SERVING)
            raise
        except EngineFailedError as error:
            self._fail(error)
            raise
        self._phase = phase
        self._enter(HostState.SERVING)
        report = SwitchReport(drained - started, self._clock() - drained)
        _log.info("now %s: drained %.3f s, switched %.3f s", phase, report.drain_s, report.switch_s)
        return report

    async def _drain(self, phase: Phase, timeout_s: float) -> None:
        if await self._legs.drain(timeout_s):
            return
        _log.warning("%d requests outlived %s s and go on elsewhere", len(self._legs), timeout_s)
        self._legs.send_away(f"this group changes its phase to {phase}; go on with another one")
        if not await self._legs.drain(self._let_go_s):
            raise EngineBusyError(f"{len(self._legs)} requests did not let go")

    async def _switch_engine(self, phase: Phase, deadline: float) -> None:
        while True:
            try:
                return await self._engine.switch(phase)
            except EngineBusyError:
                if self._clock() >= deadline:
                    raise
            await asyncio.sleep(BUSY_RETRY_S)

    def _leg(self, phase: Phase) -> AbstractContextManager[Leg]:
        if self._state is not HostState.SERVING or self._phase is not phase:
            raise PreconditionError(
                f"this worker is {self._state} in phase {self._phase}; the request needs {phase}"
            )
        return self._legs.enter()

    def _spawn(self, coroutine: Coroutine[Any, Any, _Result]) -> asyncio.Task[_Result]:
        task = asyncio.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        # Whoever waited may be gone; the failure was logged where it happened.
        task.add_done_callback(lambda done: done.cancelled() or done.exception())
        return task

    async def _watch_engine(self) -> None:
        self._fail(await self._engine.wait_failed())

    async def _watch_links(self, kvlink: KvLink) -> None:
        while True:
            self._links = await kvlink.links()
            await asyncio.sleep(LINKS_INTERVAL_S)

    def _fail(self, error: EngineFailedError) -> None:
        self._enter(HostState.FAILED)
        if self._failure is not None and not self._failure.done():
            self._failure.set_result(error)

    def _enter(self, state: HostState) -> None:
        self._state = state
        self._notify()

    def _notify(self) -> None:
        for listener in self._listeners:
            listener()
