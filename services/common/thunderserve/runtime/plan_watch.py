"""Following the plan: the newest one, kept through any absence of the control plane."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
from typing import TYPE_CHECKING, Self

import grpc

from thunderserve.api.control.v1 import control_pb2
from thunderserve.api.control.v1.control_pb2_grpc import ControlServiceStub
from thunderserve.core.errors import InvalidArgumentError
from thunderserve.core.fleet import PlanView
from thunderserve.runtime.backoff import Backoff
from thunderserve.runtime.channel import open_channel
from thunderserve.runtime.errors import error_from_rpc
from thunderserve.wire.fleet import worker_from_proto
from thunderserve.wire.plans import plan_from_proto

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence
    from types import TracebackType


__all__ = ["PlanView", "PlanWatch"]

_log = logging.getLogger(__name__)


class PlanWatch:
    """Follows the plan while the block runs; `view` is the newest one.

    ::

        async with PlanWatch(addresses) as watch:
            async for plan, workers in watch.views():
                ...

    Control's absence is no error: the last plan stays, and every address is tried in turn.

    Args:
        addresses: `host:port` of every control replica; at least one.
        on_change: Called with every new view, before `views` yields it.
        backoff: Delays between tries.
    """

    def __init__(
        self,
        addresses: Sequence[str],
        *,
        on_change: Callable[[PlanView], None] | None = None,
        backoff: Backoff | None = None,
    ) -> None:
        self._addresses = tuple(addresses)
        self._on_change = on_change
        self._backoff = backoff or Backoff()
        self._view: PlanView | None = None
        self._changed = asyncio.Event()
        self._stream: asyncio.Task[None] | None = None
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._follow_for_ever(), name="plan-watch")
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    @property
    def view(self) -> PlanView | None:
        """The newest plan and its workers; None before the first."""
        return self._view

    @property
    def epoch(self) -> int:
        """The epoch followed now; 0 before the first plan."""
        return 0 if self._view is None else self._view.plan.epoch

    def move_on(self) -> None:
        """Follow at the next address: the present one was found deaf by other means.

        A stream without news looks the same as one whose server froze.
        """
        if self._stream is not None:
            self._stream.cancel()

    async def views(self) -> AsyncIterator[PlanView]:
        """The newest view, then every change; a slow reader skips to the newest."""
        seen: PlanView | None = None
        while True:
            changed = self._changed
            if self._view is not None and self._view is not seen:
                seen = self._view
                yield seen
            else:
                await changed.wait()

    async def _follow_for_ever(self) -> None:
        for address in itertools.cycle(self._addresses):
            self._stream = asyncio.create_task(self._try_follow(address))
            try:
                await asyncio.wait([self._stream])
            finally:
                self._stream.cancel()
                await asyncio.wait([self._stream])
            if not self._stream.cancelled():
                self._stream.result()
            await asyncio.sleep(self._backoff.next_s())

    async def _try_follow(self, address: str) -> None:
        try:
            await self._follow(address)
        except grpc.aio.AioRpcError as error:
            _log.debug("no plan from control at %s: %s", address, error_from_rpc(error))
        except InvalidArgumentError as error:
            _log.warning("control at %s sent a plan that is none: %s", address, error)

    async def _follow(self, address: str) -> None:
        async with open_channel(address) as channel:
            request = control_pb2.WatchPlanRequest(known_epoch=self.epoch)
            async for response in ControlServiceStub(channel).WatchPlan(request):
                self._backoff.reset()
                plan = plan_from_proto(response.plan)
                workers = tuple(worker_from_proto(worker) for worker in response.workers)
                self._accept(PlanView(plan, workers))

    def _accept(self, received: PlanView) -> None:
        if received.plan.epoch <= self.epoch:
            return
        _log.info("following plan %d: %s", received.plan.epoch, received.plan.reason)
        self._view = received
        if self._on_change is not None:
            self._on_change(received)
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()
