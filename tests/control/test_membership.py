"""Leases: who is heard stays, who falls silent is lost, who comes back is routed to again."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from fleet_fakes import FakeWorker, fleet, followed, make_worker, weights
from grpc.aio import AioRpcError

from thunderserve.api.control.v1 import control_pb2
from thunderserve.api.control.v1.control_pb2_grpc import MembershipServiceStub
from thunderserve.core.errors import ConflictError, InvalidArgumentError, UnavailableError
from thunderserve.core.fleet import GroupState, Heartbeat, Worker
from thunderserve.core.plan import Phase
from thunderserve.runtime.channel import open_channel
from thunderserve.runtime.errors import error_from_rpc
from thunderserve.wire.fleet import heartbeat_to_proto, hello_to_proto

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from control_under_test import ControlUnderTest

    Sockets = Callable[[str], str]

PREFILL, DECODE = Phase.PREFILL, Phase.DECODE
BEAT = control_pb2.AttachRequest(heartbeat=heartbeat_to_proto(Heartbeat(phase=DECODE)))


def hello(worker: Worker) -> control_pb2.AttachRequest:
    return control_pb2.AttachRequest(hello=hello_to_proto(worker))


async def attach_error(address: str, *messages: control_pb2.AttachRequest) -> Exception:
    """The error that these messages, and then silence, come to."""

    async def requests() -> AsyncIterator[control_pb2.AttachRequest]:
        for message in messages:
            yield message
        await asyncio.Event().wait()

    async with open_channel(address) as channel, asyncio.timeout(10):
        call = MembershipServiceStub(channel).Attach(requests())
        try:
            async for _ in call:
                pass
        except AioRpcError as error:
            return error_from_rpc(error)
    raise AssertionError


async def test_worker_is_lost_when_it_vanishes_and_routed_to_when_it_returns(
    control: ControlUnderTest, sockets: Sockets
) -> None:
    """A crash says no goodbye: the lease must end first; the group is LOST meanwhile."""
    async with fleet(control.addresses, sockets, g0=PREFILL, g1=DECODE, g2=DECODE) as (
        workers,
        router,
    ):
        loop = asyncio.get_running_loop()
        gone_s = loop.time()
        await workers["g2"].vanish()
        cut = await followed(router, lambda plan: len(plan.routes) == 1)
        assert loop.time() - gone_s > 0.3
        assert weights(cut) == pytest.approx({("g0", "g1"): 1.0})
        states = {g.group.id: g.state for g in await control.client.groups()}
        assert states["g2"] is GroupState.LOST
        async with FakeWorker("g2", DECODE, sockets("g2b"), control.addresses):
            await followed(router, lambda plan: len(plan.routes) == 2)


async def test_worker_is_lost_when_its_open_stream_falls_silent(control: ControlUnderTest) -> None:
    """A process that hangs keeps its connection; its lease ends all the same."""
    error = await attach_error(control.config.address, hello(make_worker("g9")), BEAT)
    assert isinstance(error, UnavailableError)
    assert "no heartbeat" in str(error)
    assert await control.client.groups() == ()


async def test_plan_has_a_new_epoch_when_a_worker_restarts_quickly(
    control: ControlUnderTest, sockets: Sockets
) -> None:
    """Nobody was lost in between, but routers must learn the new address."""
    async with fleet(control.addresses, sockets, g0=PREFILL, g1=DECODE) as (workers, router):
        before = router.watch.epoch
        await workers["g1"].vanish()
        async with FakeWorker("g1", DECODE, sockets("g1b"), control.addresses):
            plan = await followed(router, lambda plan: plan.epoch > before)
            assert plan.routes
            assert router.watch.view is not None
            worker = router.watch.view.worker("g1")
            assert worker is not None
            assert worker.address == sockets("g1b")


@pytest.mark.parametrize("control", ["memory"], indirect=True)
async def test_attach_is_refused_when_another_process_has_the_name(
    control: ControlUnderTest, sockets: Sockets
) -> None:
    """Two workers of one name would take turns; the second is told who has it, and how to go on."""
    async with fleet(control.addresses, sockets, g0=PREFILL, g1=DECODE):
        twin = make_worker("g1", instance_id="i9")
        error = await attach_error(control.config.address, hello(twin))
        assert isinstance(error, ConflictError)
        assert f"another process at {sockets('g1')} serves as g1 until its lease" in str(error)


@pytest.mark.parametrize("control", ["memory"], indirect=True)
async def test_attach_is_refused_when_a_gpu_is_taken(
    control: ControlUnderTest, sockets: Sockets
) -> None:
    """The message names the GPU and who holds it."""
    async with fleet(control.addresses, sockets, g0=PREFILL, g1=DECODE):
        message = hello(make_worker("g1"))
        message.hello.worker.group_id = "thief"
        error = await attach_error(control.config.address, message)
        assert isinstance(error, ConflictError)
        assert "n-g1/0" in str(error)


@pytest.mark.parametrize("control", ["memory"], indirect=True)
async def test_attach_is_refused_when_the_model_is_another(control: ControlUnderTest) -> None:
    """A fleet serves one model."""
    message = hello(make_worker("g1"))
    message.hello.worker.model = "gpt-2"
    error = await attach_error(control.config.address, message)
    assert isinstance(error, InvalidArgumentError)


@pytest.mark.parametrize("control", ["memory"], indirect=True)
async def test_attach_is_refused_when_the_gpus_make_no_group(control: ControlUnderTest) -> None:
    """A worker that no plan can hold must not stop the others' plans."""
    message = hello(make_worker("g1"))
    message.hello.worker.capabilities.tp = 2
    error = await attach_error(control.config.address, message)
    assert isinstance(error, InvalidArgumentError)
    assert "tp 2" in str(error)


@pytest.mark.parametrize("control", ["memory"], indirect=True)
async def test_attach_is_refused_when_the_first_message_is_no_hello(
    control: ControlUnderTest,
) -> None:
    """Nobody can beat without a name."""
    assert isinstance(await attach_error(control.config.address, BEAT), InvalidArgumentError)


@pytest.mark.etcd
async def test_plan_and_epoch_stay_when_control_restarts(
    etcd_control: ControlUnderTest, sockets: Sockets
) -> None:
    """Members come back within their leases: nothing is published anew, and epochs go on."""
    control = etcd_control
    async with fleet(control.addresses, sockets, g0=PREFILL, g1=DECODE, g2=DECODE) as (_, router):
        await control.client.drain("g2")
        plan = await followed(router, lambda plan: len(plan.routes) == 1)
        await control.stop()
        await control.start()
        assert await control.client.plan() == plan
        states = {g.group.id: g.state for g in await control.client.groups()}
        assert states["g2"] is GroupState.DRAINED
        await control.client.undrain("g2")
        after = await followed(router, lambda plan: len(plan.routes) == 2)
        assert after.epoch == plan.epoch + 1
        assert router.epochs == sorted(set(router.epochs))


async def test_epochs_go_on_rising_when_the_store_was_emptied(
    control: ControlUnderTest, sockets: Sockets
) -> None:
    """Members that know a higher epoch would refuse a plan that began at 1 again."""
    async with fleet(control.addresses, sockets, g0=PREFILL, g1=DECODE) as (_, router):
        for _ in range(3):
            await control.client.drain("g1")
            await control.client.undrain("g1")
        known = (await control.client.plan()).epoch
        await followed(router, lambda plan: plan.epoch == known)
        control.forget()
        await control.stop()
        await control.start()
        plan = await followed(router, lambda plan: plan.epoch > known)
        assert plan.routes
