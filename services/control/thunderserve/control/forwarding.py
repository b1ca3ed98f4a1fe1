"""Writes that reach a follower go on to the leader, and its answer comes back as it is."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, Protocol

import grpc
from grpc_status import rpc_status

from thunderserve.api.control.v1.control_pb2_grpc import ControlServiceStub
from thunderserve.control.callers import acting_for, caller_of
from thunderserve.core.errors import UnreachableError
from thunderserve.core.identity import CALLER_KEY
from thunderserve.runtime.channel import open_channel
from thunderserve.runtime.errors import error_from_rpc

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from thunderserve.control.leadership import Leadership
    from thunderserve.control.observer import Observer

    _Context = grpc.aio.ServicerContext[Any, Any]

__all__ = ["Forwarder", "by_leader"]

_FORWARDED_BY = "thunderserve-forwarded-by"
_EPOCH = "thunderserve-plan-epoch"
# A caller without a deadline, and a leader that does not come to an end.
_LONGEST_S = 600.0
# For this replica to see what the leader wrote: who asks it next is to find it.
_CATCH_UP_S = 1.0


class _Forwarding(Protocol):
    forwarder: Forwarder


def by_leader(method: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    """A servicer's method that writes: where this replica follows, the leader answers."""

    @functools.wraps(method)
    async def answered(self: _Forwarding, request: Any, context: _Context) -> Any:
        if not self.forwarder.is_due(context):
            with acting_for(self.forwarder.caller(context)):
                response = await method(self, request, context)
            self.forwarder.tell_epoch(context)
            return response
        return await self.forwarder.forward(method.__name__, request, context)

    return answered


class Forwarder:
    """Asks the leader.

    Args:
        leadership: Who leads.
        observer: What this replica knows.
        name: This replica's advertised address.
    """

    def __init__(self, leadership: Leadership, observer: Observer, name: str) -> None:
        self._leadership = leadership
        self._observer = observer
        self._name = name

    def is_due(self, context: _Context) -> bool:
        """False where this replica answers, if only to say that nobody leads.

        A call is forwarded once, so that no two replicas play ball with it.
        """
        forwarded = _FORWARDED_BY in dict(context.invocation_metadata() or ())
        elsewhere = self._leadership.leader not in {"", self._name}
        return elsewhere and not forwarded and not self._leadership.leads

    def caller(self, context: _Context) -> str:
        """Who asks, also where a follower passes the call on."""
        metadata = dict(context.invocation_metadata() or ())
        certified = context.auth_context().get("x509_subject_alternative_name", ())
        return caller_of(metadata, certified, forwarded=_FORWARDED_BY in metadata)

    def tell_epoch(self, context: _Context) -> None:
        """Say with an answer which plan stood after it."""
        if self._observer.standing is not None:
            context.set_trailing_metadata(((_EPOCH, str(self._observer.standing.plan.epoch)),))

    async def forward(self, method: str, request: Any, context: _Context) -> Any:
        """The leader's answer.

        Raises:
            UnreachableError: It does not answer.
            ThunderServeError: What it raised.
        """
        leader = self._leadership.leader
        async with open_channel(leader) as channel:
            call = getattr(ControlServiceStub(channel), method)(
                request,
                timeout=context.time_remaining() or _LONGEST_S,
                metadata=((_FORWARDED_BY, self._name), (CALLER_KEY, self.caller(context))),
            )
            try:
                response = await call
            except grpc.aio.AioRpcError as error:
                if rpc_status.from_call(error) is not None:  # type: ignore[arg-type]  # has all that is read
                    raise error_from_rpc(error) from None
                raise UnreachableError(
                    f"this control replica ({self._name}) follows, and the leader at {leader} "
                    f"does not answer: {error.details()}"
                ) from None
            told = dict(await call.trailing_metadata() or ()).get(_EPOCH, "0")
        await self._catch_up(int(told))
        return response

    async def _catch_up(self, epoch: int) -> None:
        def is_seen() -> bool:
            standing = self._observer.standing
            return standing is not None and standing.plan.epoch >= epoch

        if epoch:
            await self._observer.wait_until(is_seen, _CATCH_UP_S)
