"""One flip, from its record to its end."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

from thunderserve.control.inventory import lagging_routers
from thunderserve.core.errors import ConflictError, ThunderServeError, UnavailableError
from thunderserve.core.fleet import Flip, FlipStep

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from thunderserve.control.observer import Observer
    from thunderserve.control.standing import Intent, Standing
    from thunderserve.control.steward import Steward
    from thunderserve.core.fleet import Switched, Worker, WorkerStatus
    from thunderserve.core.plan import Phase

__all__ = ["FlipLimits", "FlipRun", "WorkerClient"]

_log = logging.getLogger(__name__)


class WorkerClient(Protocol):
    """What a flip asks of a worker; every call raises ThunderServeError when it fails."""

    async def status(self) -> WorkerStatus:
        """How the worker is now."""

    async def switch_phase(
        self, phase: Phase, *, drain_timeout_s: float, plan_epoch: int
    ) -> Switched:
        """Drain, then change the phase; returns when both are done."""

    async def close(self) -> None:
        """Free the connection."""


@dataclass(frozen=True, slots=True)
class FlipLimits:
    """How long a flip waits.

    Attributes:
        acknowledge_s: For routers to follow the plan without the group. One that does not is
            refused by the switching worker and tries another pair, so the flip goes on.
        verify_s: For the worker to be seen in its new phase.
        poll_s: Between looks at a worker that drains.
        retry_s: Between tries to publish.
        settle_s: For a worker that a dead leader left draining or switching to come to an end.
    """

    acknowledge_s: float = 5.0
    verify_s: float = 5.0
    poll_s: float = 0.1
    retry_s: float = 0.5
    settle_s: float = 120.0


class FlipRun:
    """Drives one flip; `flip` is how far it is.

    Args:
        flip: As it was recorded first.
        worker: Who is to flip.
        drain_timeout_s: For requests in flight.
        observer: What is known.
        steward: Publishes plans.
        open_worker: A client of the worker at an address.
        record: Writes the flip to the store.
        leads: False when this replica must leave the flip to another.
        limits: How long to wait.
    """

    def __init__(
        self,
        flip: Flip,
        worker: Worker,
        drain_timeout_s: float,
        *,
        observer: Observer,
        steward: Steward,
        open_worker: Callable[[str], WorkerClient],
        record: Callable[[Flip], Awaitable[None]],
        leads: Callable[[], bool],
        limits: FlipLimits,
    ) -> None:
        self.flip = flip
        self._worker = worker
        self._drain_timeout_s = drain_timeout_s
        self._observer = observer
        self._steward = steward
        self._open_worker = open_worker
        self._write = record
        self._leads = leads
        self._limits = limits
        self._started_s = asyncio.get_running_loop().time()

    async def run(self) -> Flip:
        """Drive the flip to its end: done, or rolled back with the reason."""
        try:
            await self._reroute()
            await self._switch_and_verify()
        except ThunderServeError as error:
            return await self._roll_back(str(error))
        reason = f"{self.flip.group_id} has flipped to {self.flip.to_phase}"
        return await self._end(FlipStep.DONE, _flipped, reason)

    async def _reroute(self) -> None:
        await self._record(step=FlipStep.REROUTING)
        group_id, to_phase = self.flip.group_id, self.flip.to_phase
        standing = await self._steward.advance(
            lambda intent: replace(intent, flipping=group_id),
            reason=f"{group_id} leaves the routes to flip to {to_phase}",
        )
        epoch = standing.plan.epoch
        self.flip = replace(self.flip, plan_epoch=epoch)
        acknowledged = await self._observer.wait_until(
            lambda: not lagging_routers(self._observer.inventory, epoch),
            self._limits.acknowledge_s,
        )
        if not acknowledged:
            late = ", ".join(lagging_routers(self._observer.inventory, epoch))
            _log.warning("flip %s goes on without routers %s", self.flip.id, late)

    async def _switch_and_verify(self) -> None:
        client = self._open_worker(self._worker.address)
        try:
            await self._switch(client)
            await self._verify(client)
        finally:
            await client.close()

    async def _switch(self, client: WorkerClient) -> None:
        await self._record(step=FlipStep.DRAINING)
        call = asyncio.create_task(
            client.switch_phase(
                self.flip.to_phase,
                drain_timeout_s=self._drain_timeout_s,
                plan_epoch=self.flip.plan_epoch,
            )
        )
        try:
            while not (await asyncio.wait([call], timeout=self._limits.poll_s))[0]:
                await self._look(client)
            switched = await call
        finally:
            call.cancel()
        await self._record(
            step=FlipStep.SWITCHING, drain_s=switched.drain_s, switch_s=switched.switch_s
        )

    async def _look(self, client: WorkerClient) -> None:
        """While the worker drains and switches: is it alive, and how far?"""
        if not self._is_alive():
            raise UnavailableError(f"the worker of group {self.flip.group_id} was lost")
        if self.flip.step is FlipStep.DRAINING:
            with suppress(ThunderServeError):  # the switch itself will say what is wrong
                status = await client.status()
                if status.in_flight == 0:
                    await self._record(step=FlipStep.SWITCHING)

    async def _verify(self, client: WorkerClient) -> None:
        switched_s = asyncio.get_running_loop().time()
        await self._record(step=FlipStep.VERIFYING)
        status = await client.status()
        if status.phase is not self.flip.to_phase or status.switching:
            raise ConflictError(f"the worker says it is in phase {status.phase}")
        if not await self._observer.wait_until(self._is_seen, self._limits.verify_s):
            raise UnavailableError(
                f"no heartbeat in phase {self.flip.to_phase} within {self._limits.verify_s} s"
            )
        verify_s = asyncio.get_running_loop().time() - switched_s
        self.flip = replace(self.flip, verify_s=verify_s)

    async def _roll_back(self, failure: str) -> Flip:
        _log.warning("flip %s of %s is rolled back: %s", self.flip.id, self.flip.group_id, failure)
        self.flip = replace(self.flip, failure=failure)
        reason = f"the flip of {self.flip.group_id} was rolled back"
        return await self._end(FlipStep.ROLLED_BACK, _unflipped, reason)

    async def _end(self, step: FlipStep, change: Callable[[Intent], Intent], reason: str) -> Flip:
        standing = await self._published(change, reason)
        total_s = asyncio.get_running_loop().time() - self._started_s
        await self._record(step=step, plan_epoch=standing.plan.epoch, total_s=total_s)
        return self.flip

    async def _published(self, change: Callable[[Intent], Intent], reason: str) -> Standing:
        """Publish, however often it takes: a group must not stay out of the routes for ever."""
        while True:
            try:
                return await self._steward.advance(change, reason=reason)
            except (ConflictError, UnavailableError) as error:
                if not self._leads():
                    raise
                _log.warning("flip %s waits to publish: %s", self.flip.id, error)
            await asyncio.sleep(self._limits.retry_s)

    async def _record(self, **progress: Any) -> None:
        self.flip = replace(self.flip, **progress)
        await self._write(self.flip)

    def _is_alive(self) -> bool:
        live = self._observer.inventory.worker(self.flip.group_id)
        return live is not None and live.worker.instance_id == self._worker.instance_id

    def _is_seen(self) -> bool:
        live = self._observer.inventory.worker(self.flip.group_id)
        return live is not None and live.heartbeat.phase is self.flip.to_phase


def _flipped(intent: Intent) -> Intent:
    # An operator's routes were made for the old phases.
    return replace(intent, flipping="", applied=None)


def _unflipped(intent: Intent) -> Intent:
    return replace(intent, flipping="")
