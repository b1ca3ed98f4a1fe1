"""Flips: one at a time, each recorded at every step."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace
from typing import TYPE_CHECKING

from thunderserve.control.changes import FlipRules, allowed_flip, check_floor
from thunderserve.control.flip_run import FlipLimits, FlipRun, WorkerClient
from thunderserve.control.records import Keys, flip_from_value, flip_to_value
from thunderserve.core.errors import (
    ConflictError,
    InvalidArgumentError,
    NotFoundError,
    PreconditionError,
    ThunderServeError,
    UnavailableError,
)
from thunderserve.core.events import Event, EventKind
from thunderserve.core.fleet import Flip, FlipStep
from thunderserve.runtime.store.base import Put

if TYPE_CHECKING:
    from collections.abc import Callable

    from thunderserve.control.changes import AllowedFlip
    from thunderserve.control.journal import Journal
    from thunderserve.control.leadership import Leadership
    from thunderserve.control.observer import Observer
    from thunderserve.control.steward import Steward
    from thunderserve.core.plan import Phase
    from thunderserve.runtime.store.base import Store

__all__ = ["Flips"]

_log = logging.getLogger(__name__)


class Flips:
    """Starts flips, knows those that were, and ends those that a dead leader left.

    Args:
        store: Where flips are recorded.
        keys: The fleet's keys.
        observer: What is known.
        steward: Publishes plans.
        leadership: Only the leader flips.
        journal: Writes the steps.
        open_worker: A client of the worker at an address.
        clock: Seconds since 1970.
        new_id: A fresh flip's id.
        limits: How long a flip waits.
        rules: What flips must leave; without them nothing is asked but that somebody serves.
    """

    def __init__(
        self,
        store: Store,
        keys: Keys,
        observer: Observer,
        steward: Steward,
        leadership: Leadership,
        *,
        journal: Journal,
        open_worker: Callable[[str], WorkerClient],
        clock: Callable[[], float],
        new_id: Callable[[], str],
        limits: FlipLimits | None = None,
        rules: FlipRules | None = None,
    ) -> None:
        self._store = store
        self._keys = keys
        self._observer = observer
        self._steward = steward
        self._leadership = leadership
        self._journal = journal
        self._open_worker = open_worker
        self._clock = clock
        self._new_id = new_id
        self._limits = limits or FlipLimits()
        self._rules = rules
        self._settled = False
        self._running: tuple[str, asyncio.Task[Flip]] | None = None

    async def flip(
        self,
        group_id: str,
        to_phase: Phase,
        *,
        drain_timeout_s: float,
        flip_id: str = "",
        validate_only: bool = False,
    ) -> Flip:
        """Change a group's phase; a caller that goes away does not stop it.

        Args:
            group_id: Who is to change.
            to_phase: To what.
            drain_timeout_s: For requests in flight, > 0.
            flip_id: Repeating one waits for the flip that has it, and returns it.
            validate_only: Check, and do nothing.

        Returns:
            The flip when it has ended: done, or rolled back with the reason.

        Raises:
            PreconditionError: Another flip is under way, or this one is not allowed.
            UnavailableError: This replica does not lead.
        """
        self._leadership.fence()
        if drain_timeout_s <= 0:
            raise InvalidArgumentError(
                f"drain_timeout is {drain_timeout_s} s; it must be above 0", param="drain_timeout"
            )
        if flip_id and (known := await self._try_known(flip_id)):
            return known
        self.check_idle()
        allowed = await self._allowed(group_id, to_phase)
        flip = self._new_flip(allowed, flip_id)
        if validate_only:
            return flip
        task = asyncio.create_task(self._run(flip, allowed, drain_timeout_s).run())
        self._running = (flip.id, task)
        return await asyncio.shield(task)

    async def get(self, flip_id: str) -> Flip:
        """A recorded flip; raises NotFoundError."""
        entry = await self._store.get(self._keys.flip(flip_id))
        if entry is None:
            raise NotFoundError(f"there is no flip {flip_id}")
        return flip_from_value(entry.value)

    async def all(self) -> tuple[Flip, ...]:
        """Recorded flips, newest first."""
        listing = await self._store.list(self._keys.flips)
        flips = [flip_from_value(entry.value) for entry in listing.entries]
        return tuple(sorted(flips, key=lambda flip: flip.created_unix_s, reverse=True))

    async def run(self) -> None:
        """Once after every election, end what the leader before left; for ever."""
        await self._observer.wait_loaded()  # an election may be won before the plan is read
        async for _ in self._observer.changes():
            if not self._leadership.leads:
                self._settled = False
            elif not self._settled:
                self._settled = await self._try_end_abandoned()
                self._observer.nudge()

    @property
    def settled(self) -> bool:
        """True when what the leader before left is ended."""
        return self._settled and self._leadership.leads

    def check_idle(self) -> None:
        """Raises PreconditionError while a flip is under way."""
        if self._running is not None and not self._running[1].done():
            raise PreconditionError(
                f"flip {self._running[0]} is under way; one flip at a time: try again after it"
            )
        standing = self._observer.standing
        if standing is not None and standing.intent.flipping:
            raise PreconditionError(
                f"the flip of {standing.intent.flipping} that another leader began is being ended; "
                "try again after it"
            )

    async def end_abandoned(self) -> None:
        """End what a leader before this one left unfinished.

        The group's phase is whatever its worker says; the plan follows that by itself once the
        group is no longer said to flip.
        """
        for flip in await self.all():
            if not flip.ended and not self._is_mine(flip.id):
                await self._record(await self._ended(flip))
        standing = self._observer.standing
        if standing and standing.intent.flipping and not self._is_mine():
            await self._steward.advance(
                lambda intent: replace(intent, flipping=""),
                reason=f"the flip of {standing.intent.flipping} was left unfinished",
            )

    async def _try_end_abandoned(self) -> bool:
        try:
            await self.end_abandoned()
        except (ConflictError, UnavailableError) as error:
            _log.warning("unfinished flips were not ended: %s", error)
            asyncio.get_running_loop().call_later(self._limits.retry_s, self._observer.nudge)
            return False
        return True

    def _is_mine(self, flip_id: str = "") -> bool:
        """True for a flip that this replica runs, whichever it is where none is named."""
        if self._running is None:
            return False
        return flip_id == self._running[0] if flip_id else not self._running[1].done()

    async def _allowed(self, group_id: str, to_phase: Phase) -> AllowedFlip:
        inventory, standing = self._observer.inventory, self._observer.standing
        allowed = allowed_flip(inventory, standing, group_id, to_phase, self._rules)
        if standing and self._rules and group_id not in standing.intent.drained:
            await asyncio.to_thread(check_floor, inventory, standing, group_id, self._rules)
            self.check_idle()  # another flip may have begun meanwhile
        return allowed

    async def _try_known(self, flip_id: str) -> Flip | None:
        if self._running is not None and self._running[0] == flip_id:
            return await asyncio.shield(self._running[1])
        try:
            return await self.get(flip_id)
        except NotFoundError:
            return None

    def _new_flip(self, allowed: AllowedFlip, flip_id: str) -> Flip:
        return Flip(
            id=flip_id or self._new_id(),
            group_id=allowed.group.id,
            from_phase=allowed.group.phase,
            to_phase=allowed.to_phase,
            step=FlipStep.REROUTING,
            created_unix_s=self._clock(),
        )

    def _run(self, flip: Flip, allowed: AllowedFlip, drain_timeout_s: float) -> FlipRun:
        return FlipRun(
            flip,
            allowed.live.worker,
            drain_timeout_s,
            observer=self._observer,
            steward=self._steward,
            open_worker=self._open_worker,
            record=self._record,
            leads=lambda: self._leadership.leads,
            limits=self._limits,
        )

    async def _record(self, flip: Flip) -> None:
        put = Put(self._keys.flip(flip.id), flip_to_value(flip))
        await self._journal.commit([], [put], Event(EventKind.FLIP, flip.group_id, _told(flip)))

    async def _ended(self, flip: Flip) -> Flip:
        phase = await self._settled_phase(flip.group_id)
        if phase is flip.to_phase:
            return replace(flip, step=FlipStep.DONE)
        failure = f"control restarted at step {flip.step}; the group is in phase {phase}"
        return replace(flip, step=FlipStep.ROLLED_BACK, failure=failure)

    async def _settled_phase(self, group_id: str) -> Phase | None:
        """What the group's worker says once it no longer switches; None when it does not answer."""
        standing = self._observer.standing
        worker = standing.view.worker(group_id) if standing else None
        if worker is None:
            return None
        client = self._open_worker(worker.address)
        try:
            status = await client.status()
            for _ in range(round(self._limits.settle_s / self._limits.poll_s)):
                if not status.switching:
                    break
                await asyncio.sleep(self._limits.poll_s)
                status = await client.status()
        except ThunderServeError:
            return None
        else:
            return status.phase
        finally:
            await client.close()


def _told(flip: Flip) -> str:
    """A step of a flip in one line; its seconds where it has ended."""
    line = f"flip {flip.id} {flip.from_phase} -> {flip.to_phase}: {flip.step}"
    if flip.failure:
        line += f" ({flip.failure})"
    if not flip.ended:
        return line
    return (
        f"{line}; drain {flip.drain_s:.2f} s, switch {flip.switch_s:.2f} s, "
        f"verify {flip.verify_s:.2f} s, total {flip.total_s:.2f} s"
    )
