"""MembershipService: members attach, and are heard."""
# ruff: noqa: N802 - the methods bear the contract's names

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from google.protobuf.duration_pb2 import Duration

from thunderserve.api.control.v1 import control_pb2
from thunderserve.api.control.v1.control_pb2_grpc import MembershipServiceServicer
from thunderserve.control.inventory import check_member
from thunderserve.core.errors import InvalidArgumentError, UnavailableError
from thunderserve.wire.fleet import heartbeat_from_proto, hello_from_proto

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    import grpc

    from thunderserve.control.observer import Observer
    from thunderserve.control.registry import MemberSession, Registry
    from thunderserve.core.fleet import Worker
    from thunderserve.core.plan import Group, Phase

    _Context = grpc.aio.ServicerContext[Any, Any]
    _Requests = AsyncIterator[control_pb2.AttachRequest]

__all__ = ["MembershipServicer"]


class MembershipServicer(MembershipServiceServicer):
    """Grants leases.

    Args:
        registry: Open sessions.
        observer: Who else is alive.
        model: Name of the served model.
        group_of: The group that a worker serves; refuses one that makes none.
        lease_ttl_s: A member that is not heard for so long is lost.
        heartbeat_interval_s: How often members are to be heard.
    """

    def __init__(
        self,
        registry: Registry,
        observer: Observer,
        *,
        model: str,
        group_of: Callable[[Worker, Phase], Group],
        lease_ttl_s: float,
        heartbeat_interval_s: float,
    ) -> None:
        self._registry = registry
        self._observer = observer
        self._model = model
        self._group_of = group_of
        self._lease_ttl_s = lease_ttl_s
        self._heartbeat_interval_s = heartbeat_interval_s

    async def Attach(
        self, request_iterator: _Requests, context: _Context
    ) -> AsyncIterator[control_pb2.AttachResponse]:
        """Every message is answered with the terms of the lease and how it stands.

        A goodbye ends the lease, and silence for as long as a lease is as good. A stream that
        merely ends says nothing: the member may be back at once, so its lease runs on for a little.
        """
        del context
        session = self._open(await self._next(request_iterator))
        try:
            yield self._answer(session)
            while request := await self._next(request_iterator):
                if request.HasField("goodbye"):
                    await session.leave()
                else:
                    session.beat(heartbeat_from_proto(request.heartbeat))
                yield self._answer(session)
        except TimeoutError:
            await session.leave()
            raise UnavailableError(f"no heartbeat for {self._lease_ttl_s} s") from None
        finally:
            self._registry.lose(session)

    def _answer(self, session: MemberSession) -> control_pb2.AttachResponse:
        return control_pb2.AttachResponse(
            lease_ttl=_duration(self._lease_ttl_s),
            heartbeat_interval=_duration(self._heartbeat_interval_s),
            unrenewed_duration=_duration(session.unrenewed_s),
        )

    def _open(self, request: control_pb2.AttachRequest | None) -> MemberSession:
        if request is None or not request.HasField("hello"):
            raise InvalidArgumentError("the first message must be hello", param="hello")
        member = hello_from_proto(request.hello)
        check_member(member, self._observer.inventory, self._model, self._group_of)
        return self._registry.open(member)

    async def _next(self, requests: _Requests) -> control_pb2.AttachRequest | None:
        """The next message; None at the end."""
        async with asyncio.timeout(self._lease_ttl_s):
            return await anext(requests, None)


def _duration(seconds: float) -> Duration:
    duration = Duration()
    duration.FromNanoseconds(round(seconds * 1e9))
    return duration
