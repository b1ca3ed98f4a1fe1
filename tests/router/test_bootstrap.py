"""The router as a whole: it joins the fleet, follows the plan, serves both protocols, and stops."""

from __future__ import annotations

import asyncio
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import grpc
import httpx
import pytest
from fake_control import FakeControl
from fake_workers import RAW_BYTES, Behaviour, FakeFleet, answer_tokens, plan_of

from thunderserve.api.router.v1 import router_pb2
from thunderserve.api.router.v1.router_pb2_grpc import RouterServiceStub
from thunderserve.api.types.v1 import types_pb2
from thunderserve.core.errors import (
    InvalidArgumentError,
    NotFoundError,
    ThunderServeError,
    UnavailableError,
)
from thunderserve.core.fleet import Router
from thunderserve.core.plan import Phase
from thunderserve.demo_model import model_path
from thunderserve.router.bootstrap import serve
from thunderserve.router.config import RouterConfig
from thunderserve.runtime.channel import open_channel
from thunderserve.runtime.errors import error_from_rpc

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    Until = Callable[..., Awaitable[None]]

PROMPT = [10, 11, 12]


class RunningRouter:
    """A router in this process, its fleet, and a client of each protocol."""

    def __init__(self, folder: Path, http_port: int) -> None:
        self.control = FakeControl()
        self.fleet = FakeFleet(folder)
        self.config = RouterConfig(
            address=f"unix:{folder}/router",
            http_address=f"127.0.0.1:{http_port}",
            control_addresses=(f"unix:{folder}/control",),
            model_name="demo",
            model_path=model_path(),
            advertised_address="router.example:7000",
            router_id="r7",
        )
        self.stopping = asyncio.Event()
        self.channel = open_channel(self.config.address)
        self.rpc = RouterServiceStub(self.channel)

    async def generate(self, **fields: object) -> list[router_pb2.GenerateResponse]:
        """All messages of one call; its failure as our error."""
        tokens = router_pb2.TokenInput(token_ids=PROMPT)
        sampling = types_pb2.SamplingParams(max_tokens=6)
        asked = {"tokens": tokens, "sampling": sampling} | fields
        try:
            call = self.rpc.Generate(router_pb2.GenerateRequest(**asked), timeout=10)
            return [message async for message in call]
        except grpc.aio.AioRpcError as error:
            raise error_from_rpc(error) from None

    async def status(self) -> router_pb2.RouterStatus:
        """Waits for the server, too."""
        return await self.rpc.GetRouterStatus(
            router_pb2.GetRouterStatusRequest(), wait_for_ready=True, timeout=10
        )


@pytest.fixture
async def running(free_port: Callable[[], int]) -> AsyncIterator[RunningRouter]:
    """A router that has joined a fleet without a plan."""
    with TemporaryDirectory(prefix="ts-") as folder:
        router = RunningRouter(Path(folder), free_port())
        await router.control.start(router.config.control_addresses[0])
        serving = asyncio.create_task(serve(router.config, router.stopping))
        await router.status()
        yield router
        router.stopping.set()
        await serving
        await router.channel.close()
        await router.fleet.close()
        await router.control.stop()


@pytest.fixture
async def planned(running: RunningRouter, until: Until) -> RunningRouter:
    """The same, with one prefill, two decodes and weights 0.3 and 0.7."""
    await running.fleet.add("p0", Phase.PREFILL)
    await running.fleet.add("d0", Phase.DECODE)
    await running.fleet.add("d1", Phase.DECODE)
    plan = plan_of(("p0", "d0", 0.3), ("p0", "d1", 0.7), epoch=4)
    await running.control.publish(plan, running.fleet.live)
    await until(lambda: any(beat.plan_epoch == 4 for beat in running.control.heartbeats))
    return running


async def test_router_joins_the_fleet_and_acknowledges_plans(
    planned: RunningRouter, until: Until
) -> None:
    """Under its advertised address; a new epoch is acknowledged long before the next interval."""
    (member,) = planned.control.members
    assert isinstance(member, Router)
    assert (member.id, member.address) == ("r7", "router.example:7000")

    plan = plan_of(("p0", "d1", 1.0), epoch=5)
    await planned.control.publish(plan, planned.fleet.live)

    await until(lambda: planned.control.heartbeats[-1].plan_epoch == 5, 0.4)


async def test_generate_streams_text_tokens_and_the_report(planned: RunningRouter) -> None:
    """The last message, and only that, has the finish reason and the report."""
    *pieces, last = await planned.generate(request_id="abc")

    messages = [*pieces, last]
    assert [t for m in messages for t in m.token_ids] == answer_tokens(PROMPT, 6)
    assert {m.request_id for m in messages} == {"abc"}
    assert last.finish_reason == types_pb2.FINISH_REASON_LENGTH
    assert last.report.usage.completion_token_count == 6
    assert last.report.transfer.raw_bytes == RAW_BYTES
    assert last.report.plan_epoch == 4
    assert not any(m.HasField("report") for m in pieces)


async def test_generate_takes_every_kind_of_input(planned: RunningRouter) -> None:
    """Text, a chat and tokens."""
    chat = router_pb2.ChatInput(messages=[router_pb2.ChatMessage(role="user", content="hi")])
    for fields in ({"prompt": "hi"}, {"chat": chat}, {}):
        assert (await planned.generate(**fields))[-1].report.usage.completion_token_count == 6


@pytest.mark.parametrize(
    ("fields", "error", "words"),
    [
        ({"model": "gpt-9"}, NotFoundError, "serves 'demo'"),
        ({"request_id": "a\nb"}, InvalidArgumentError, "request_id"),
        ({"sampling": types_pb2.SamplingParams(max_tokens=-1)}, InvalidArgumentError, "is -1"),
        ({"sampling": types_pb2.SamplingParams(max_tokens=5000)}, InvalidArgumentError, "2048"),
        ({"tokens": router_pb2.TokenInput()}, InvalidArgumentError, "empty"),
        (
            {"chat": router_pb2.ChatInput(messages=[router_pb2.ChatMessage(role="robot")])},
            InvalidArgumentError,
            "'robot'",
        ),
    ],
)
async def test_generate_refuses_when_the_request_is_wrong(
    planned: RunningRouter, fields: dict, error: type[ThunderServeError], words: str
) -> None:
    """As our errors, on the caller's side."""
    with pytest.raises(error, match=words):
        await planned.generate(**fields)


async def test_generate_is_unavailable_when_there_is_no_plan(running: RunningRouter) -> None:
    """A router starts without workers, and says so."""
    with pytest.raises(UnavailableError, match="no live pair"):
        await running.generate()

    assert not (await running.status()).ready
    models = await running.rpc.ListModels(router_pb2.ListModelsRequest(), timeout=5)
    assert not models.models


async def test_generate_frees_everything_when_the_caller_cancels(
    running: RunningRouter, until: Until
) -> None:
    """Within a second."""
    await running.fleet.add("p0", Phase.PREFILL)
    slow = await running.fleet.add("d0", Phase.DECODE, Behaviour(token_gate=asyncio.Semaphore(0)))
    await running.control.publish(plan_of(("p0", "d0", 1.0)), running.fleet.live)
    await until(lambda: any(beat.plan_epoch == 1 for beat in running.control.heartbeats))
    tokens = router_pb2.TokenInput(token_ids=PROMPT)
    call = running.rpc.Generate(router_pb2.GenerateRequest(tokens=tokens), timeout=10)
    await call.read()
    await until(lambda: slow.running == 1)

    call.cancel()

    await until(lambda: slow.running == 0, 1.0)
    assert (await running.status()).in_flight_count == 0


async def test_dispatch_counts_match_the_weights_when_100_requests_ran(
    planned: RunningRouter,
) -> None:
    """30 and 70, over HTTP, within two."""
    url = f"http://{planned.config.http_address}/v1/completions"
    body = {"model": "demo", "prompt": PROMPT, "max_tokens": 2}
    async with httpx.AsyncClient(timeout=20) as client:
        for _ in range(10):
            answers = await asyncio.gather(*(client.post(url, json=body) for _ in range(10)))
            assert {answer.status_code for answer in answers} == {200}

    counts = {c.decode: c.dispatch_count for c in (await planned.status()).route_counts}
    assert abs(counts["d0"] - 30) <= 2
    assert abs(counts["d1"] - 70) <= 2
    assert len(planned.fleet.workers["d0"].decode_legs) == counts["d0"]


async def test_router_serves_on_when_control_is_gone(planned: RunningRouter) -> None:
    """With the last plan."""
    await planned.control.stop()

    assert (await planned.generate())[-1].report.plan_epoch == 4
