"""A member attaches, beats, comes back and says goodbye, over real gRPC."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest
from google.protobuf.duration_pb2 import Duration
from typing_extensions import override

from thunderserve.api.control.v1 import control_pb2
from thunderserve.api.control.v1.control_pb2_grpc import (
    MembershipServiceServicer,
    add_MembershipServiceServicer_to_server,
)
from thunderserve.core.fleet import Heartbeat, Router
from thunderserve.runtime.backoff import Backoff
from thunderserve.runtime.membership import Membership
from thunderserve.runtime.rpc import serve_rpc, stop_server

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

ROUTER = Router(id="r0", instance_id="i0", address="127.0.0.1:1")


class RecordingMembershipServicer(MembershipServiceServicer):
    """Records what members say, and grants a lease with the given interval."""

    def __init__(self, interval_s: float, lease_ttl_s: float = 2.0) -> None:
        self.hellos: list[control_pb2.Hello] = []
        self.epochs: asyncio.Queue[int] = asyncio.Queue()
        self.goodbyes: asyncio.Queue[str] = asyncio.Queue()
        self.second_hello = asyncio.Event()
        self.mute = False
        self.interval_s = interval_s
        self.lease_ttl_s = lease_ttl_s

    @override
    async def Attach(
        self,
        request_iterator: AsyncIterator[control_pb2.AttachRequest],
        context: object,
    ) -> AsyncIterator[control_pb2.AttachResponse]:
        del context
        async for request in request_iterator:
            if request.HasField("hello"):
                self.hellos.append(request.hello)
                if len(self.hellos) > 1:
                    self.second_hello.set()
            elif request.HasField("goodbye"):
                self.goodbyes.put_nowait("goodbye")
            else:
                self.epochs.put_nowait(request.heartbeat.plan_epoch)
            if not self.mute:
                yield self._terms()

    def _terms(self) -> control_pb2.AttachResponse:
        interval, ttl = Duration(), Duration()
        interval.FromMilliseconds(int(self.interval_s * 1000))
        ttl.FromMilliseconds(int(self.lease_ttl_s * 1000))
        return control_pb2.AttachResponse(heartbeat_interval=interval, lease_ttl=ttl)


@asynccontextmanager
async def serving(servicer: RecordingMembershipServicer, address: str) -> AsyncIterator[None]:
    server = await serve_rpc(
        address, lambda server: add_MembershipServiceServicer_to_server(servicer, server)
    )
    try:
        yield
    finally:
        await stop_server(server, grace_s=0)


def membership(
    *addresses: str, beat: Callable[[], Heartbeat] = lambda: Heartbeat(plan_epoch=7)
) -> Membership:
    return Membership(addresses, ROUTER, beat, backoff=Backoff(first_s=0.01, longest_s=0.05))


async def test_membership_beats_at_interval_when_attached(unix_address: str) -> None:
    """The hello comes first; heartbeats follow at the granted interval."""
    servicer = RecordingMembershipServicer(interval_s=0.01)
    async with serving(servicer, unix_address), membership(unix_address) as member:
        beats = [await asyncio.wait_for(servicer.epochs.get(), 5) for _ in range(3)]
        assert member.attached_to == unix_address
    assert beats == [7, 7, 7]
    assert [hello.router.id for hello in servicer.hellos] == ["r0"]


async def test_membership_beats_at_once_when_notified(unix_address: str) -> None:
    """A change does not wait for the interval."""
    servicer = RecordingMembershipServicer(interval_s=60)
    epoch = 1
    async with (
        serving(servicer, unix_address),
        membership(unix_address, beat=lambda: Heartbeat(plan_epoch=epoch)) as member,
    ):
        assert await asyncio.wait_for(servicer.epochs.get(), 5) == 1
        epoch = 2
        member.notify()
        assert await asyncio.wait_for(servicer.epochs.get(), 5) == 2


async def test_membership_says_goodbye_when_the_block_ends(unix_address: str) -> None:
    """An orderly end is told at once, without waiting for an interval."""
    servicer = RecordingMembershipServicer(interval_s=60)
    async with serving(servicer, unix_address):
        async with membership(unix_address):
            await asyncio.wait_for(servicer.epochs.get(), 5)
        assert await asyncio.wait_for(servicer.goodbyes.get(), 5) == "goodbye"


async def test_membership_attaches_to_another_replica_when_one_dies(
    unix_address: str, other_unix_address: str
) -> None:
    """Control's absence is bridged by the next address of the list."""
    first, second = RecordingMembershipServicer(0.01), RecordingMembershipServicer(0.01)
    async with membership(unix_address, other_unix_address) as member:
        async with serving(first, unix_address):
            await asyncio.wait_for(first.epochs.get(), 5)
        async with serving(second, other_unix_address):
            await asyncio.wait_for(second.epochs.get(), 5)
            await asyncio.wait_for(second.epochs.get(), 5)
            assert member.attached_to == other_unix_address


async def test_membership_attaches_again_when_the_server_falls_silent(unix_address: str) -> None:
    """A heartbeat without an answer within the lease means a lost server."""
    servicer = RecordingMembershipServicer(interval_s=0.01, lease_ttl_s=0.1)
    async with serving(servicer, unix_address), membership(unix_address):
        await asyncio.wait_for(servicer.epochs.get(), 5)
        servicer.mute = True
        await asyncio.wait_for(servicer.second_hello.wait(), 5)


def test_backoff_doubles_up_to_the_longest_when_drawn_high() -> None:
    """Delays grow, stay bounded, and begin anew after a success."""
    backoff = Backoff(first_s=0.1, longest_s=0.35, draw=lambda: 1.0)
    assert [backoff.next_s() for _ in range(4)] == pytest.approx([0.1, 0.2, 0.35, 0.35])
    backoff.reset()
    assert backoff.next_s() == pytest.approx(0.1)
