"""A worker's or router's membership of the fleet: attach, and say so again and again."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
from typing import TYPE_CHECKING, Self

import grpc

from thunderserve.api.control.v1 import control_pb2
from thunderserve.api.control.v1.control_pb2_grpc import MembershipServiceStub
from thunderserve.core.errors import UnavailableError
from thunderserve.runtime.backoff import Backoff
from thunderserve.runtime.channel import open_channel
from thunderserve.runtime.errors import error_from_rpc
from thunderserve.wire.fleet import heartbeat_to_proto, hello_to_proto

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import TracebackType

    from thunderserve.core.fleet import Heartbeat, Member

__all__ = ["Membership"]

_log = logging.getLogger(__name__)

FIRST_ANSWER_TIMEOUT_S = 5.0
GOODBYE_TIMEOUT_S = 1.0


class Membership:
    """Keeps `member` attached to any replica of the control plane while the block runs.

    ::

        async with Membership(addresses, worker, lambda: host.heartbeat()) as membership:
            ...
            membership.notify()  # the phase changed: tell it now

    Control's absence is no error: the next address is tried, with growing delays, for ever. A
    replica that does not answer, or that has lost the store, is left for the next one while the
    lease still runs. On leaving the block the member says goodbye, so that it is not missed for a
    whole lease; where the block is cancelled, the member is to be gone at once, as a killed process
    is, and says nothing.

    Args:
        addresses: `host:port` of every control replica; at least one.
        member: Who attaches.
        heartbeat: What to say of it now; called at every interval.
        on_leave: Called when a replica is left: it may be deaf on other streams, too.
        backoff: Delays between tries.
    """

    def __init__(
        self,
        addresses: Sequence[str],
        member: Member,
        heartbeat: Callable[[], Heartbeat],
        *,
        on_leave: Callable[[], None] = lambda: None,
        backoff: Backoff | None = None,
    ) -> None:
        self._addresses = tuple(addresses)
        self._hello = hello_to_proto(member)
        self._heartbeat = heartbeat
        self._on_leave = on_leave
        self._patience_s = FIRST_ANSWER_TIMEOUT_S
        self._refusal = ""
        self._backoff = backoff or Backoff()
        self._due = asyncio.Event()
        self._leaving = False
        self._attached_to: str | None = None
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._stay_attached(), name="membership")
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._leaving = True
        self.notify()
        if self._task is not None:
            if kind is not asyncio.CancelledError:
                await asyncio.wait([self._task], timeout=GOODBYE_TIMEOUT_S)
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    @property
    def attached_to(self) -> str | None:
        """The replica that grants the lease now; None while detached."""
        return self._attached_to

    def notify(self) -> None:
        """Send a heartbeat at once: something in it changed."""
        self._due.set()

    async def _stay_attached(self) -> None:
        for address in itertools.cycle(self._addresses):
            try:
                await self._attach(address)
            except (grpc.aio.AioRpcError, asyncio.InvalidStateError, UnavailableError) as error:
                self._detached(address, error)
            if self._leaving:
                return
            await self._pause(self._backoff.next_s())

    async def _attach(self, address: str) -> None:
        async with open_channel(address) as channel:
            call: _Call = MembershipServiceStub(channel).Attach(None)
            hello = control_pb2.AttachRequest(hello=self._hello)
            terms = await _exchange(call, hello, self._patience_s)
            while not self._leaving:
                self._take(terms)
                self._due.clear()
                beat = heartbeat_to_proto(self._heartbeat())
                request = control_pb2.AttachRequest(heartbeat=beat)
                terms = await _exchange(call, request, self._patience_s)
                self._attached(address)
                await self._pause(terms.heartbeat_interval.ToTimedelta().total_seconds())
            goodbye = control_pb2.AttachRequest(goodbye=control_pb2.Goodbye())
            await _exchange(call, goodbye, GOODBYE_TIMEOUT_S)
            self._attached_to = None

    def _take(self, terms: control_pb2.AttachResponse) -> None:
        """Where there is another replica to go to, go there in the first third of the lease."""
        ttl_s = terms.lease_ttl.ToTimedelta().total_seconds()
        self._patience_s = ttl_s / 3 if len(self._addresses) > 1 else ttl_s
        if terms.unrenewed_duration.ToTimedelta().total_seconds() > self._patience_s:
            raise UnavailableError("it cannot reach the store")

    async def _pause(self, seconds: float) -> None:
        """Wait for `notify`, at most so long."""
        with contextlib.suppress(TimeoutError):
            # Not `wait_for`: in Python 3.11 it loses a cancellation that comes with the event.
            async with asyncio.timeout(seconds):
                await self._due.wait()

    def _attached(self, address: str) -> None:
        self._backoff.reset()
        if self._attached_to is None:
            _log.info("attached to control at %s", address)
        self._attached_to = address

    def _detached(self, address: str, error: Exception) -> None:
        cause = error_from_rpc(error) if isinstance(error, grpc.aio.AioRpcError) else error
        is_refused = not isinstance(cause, UnavailableError) and str(cause) != self._refusal
        warn = is_refused or self._attached_to is not None
        level = logging.WARNING if warn else logging.DEBUG
        _log.log(level, "not attached to control at %s: %s", address, cause)
        self._refusal = str(cause)
        self._attached_to = None
        self._on_leave()


_Call = grpc.aio.StreamStreamCall[control_pb2.AttachRequest, control_pb2.AttachResponse]


async def _exchange(
    call: _Call, request: control_pb2.AttachRequest, timeout_s: float
) -> control_pb2.AttachResponse:
    """Every message is answered with the terms of the lease; silence means a lost server."""
    try:
        async with asyncio.timeout(timeout_s):
            await call.write(request)
            answer = await call.read()
    except TimeoutError:
        raise UnavailableError(f"no answer within {timeout_s} s") from None
    if not isinstance(answer, control_pb2.AttachResponse):
        raise UnavailableError("control ended the stream")
    return answer
