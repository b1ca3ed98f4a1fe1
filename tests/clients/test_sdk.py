"""The SDK against a fake router."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from thunderserve import client as sdk
from thunderserve.client import AsyncClient, Client, FinishReason, Message, RouteCount, WireMode
from thunderserve.core.errors import (
    DeadlineError,
    InvalidArgumentError,
    OverloadedError,
    UnavailableError,
)

if TYPE_CHECKING:
    from conftest import FakeRouter  # type: ignore[import-not-found]  # pytest's own path

PUBLIC = """AsyncClient AsyncGenerationStream Client ConflictError ControlClient DeadlineError
EngineFailedError FinishReason Generation GenerationReport GenerationStream InvalidArgumentError
Message Model NotFoundError OverloadedError PermissionDeniedError PreconditionError RouteCount
RouterStatus SamplingParams ThunderServeError TokenDelta TransferReport UnauthenticatedError
UnavailableError Usage WireMode"""


def test_sdk_names_are_pinned() -> None:
    """What is public is decided, not accumulated."""
    assert sdk.__all__ == PUBLIC.split()
    assert all(hasattr(sdk, name) for name in sdk.__all__)


async def test_client_generates_whole_answer(router_address: str) -> None:
    """A generation holds text, tokens, why it ended and what it took."""
    generation = await asyncio.to_thread(_generate, router_address)

    assert generation.text == "<11><12><13>"
    assert generation.token_ids == (11, 12, 13)
    assert generation.finish_reason is FinishReason.LENGTH
    assert generation.request_id == "r1"
    assert generation.report.transfer is not None
    assert generation.report.transfer.wire_bytes == 1100
    assert generation.report.ttft_s == 0.25


def _generate(address: str) -> sdk.Generation:
    with Client(address) as client:
        return client.generate("a b c d", max_tokens=3)


async def test_async_client_streams_deltas_and_report_last(router_address: str) -> None:
    """Deltas come as they are made; the last one alone carries the end and the report."""
    async with AsyncClient(router_address) as client:
        deltas = [delta async for delta in client.stream("a b", max_tokens=3)]

    assert [delta.text for delta in deltas] == ["<11>", "<12>", "<13>", ""]
    assert [delta.finish_reason for delta in deltas[:-1]] == [None] * 3
    assert deltas[-1].finish_reason is FinishReason.LENGTH
    assert deltas[-1].report is not None
    assert deltas[-1].report.decode_group == "g1"


async def test_client_sends_every_keyword(router: FakeRouter, router_address: str) -> None:
    """Nothing that the caller says is lost on the way."""
    async with AsyncClient(router_address) as client:
        await client.generate(
            messages=[Message("system", "Be brief."), Message("user", "Hello")],
            model="m",
            max_tokens=3,
            temperature=0.5,
            top_p=0.9,
            top_k=40,
            stop="\n",
            stop_token_ids=[0],
            ignore_eos=True,
            seed=7,
            wire_mode=WireMode.RAW16,
            request_id="mine",
        )

    request = router.requests[0]
    assert [(m.role, m.content) for m in request.chat.messages] == [
        ("system", "Be brief."),
        ("user", "Hello"),
    ]
    assert (request.model, request.request_id, list(request.stop)) == ("m", "mine", ["\n"])
    sampling = request.sampling
    assert (sampling.max_tokens, sampling.temperature, sampling.top_p) == (3, 0.5, 0.9)
    assert (sampling.top_k, list(sampling.stop_token_ids)) == (40, [0])
    assert (sampling.ignore_eos, sampling.seed) == (True, 7)
    assert request.wire_mode == 1


async def test_client_sends_token_ids_and_prompt_as_they_are(
    router: FakeRouter, router_address: str
) -> None:
    """A tokenised prompt is not tokenised again."""
    async with AsyncClient(router_address) as client:
        await client.generate(token_ids=[5, 6], max_tokens=3)
        await client.generate("text", max_tokens=3)

    assert list(router.requests[0].tokens.token_ids) == [5, 6]
    assert router.requests[1].prompt == "text"


@pytest.mark.parametrize("given", [{}, {"messages": [], "token_ids": [1]}])
async def test_client_refuses_when_input_is_not_exactly_one(
    given: dict[str, list[int]], nobody: str
) -> None:
    """No call is made for a request that names none or two inputs."""
    async with AsyncClient(nobody) as client:
        with pytest.raises(InvalidArgumentError, match="one of prompt, messages and token_ids"):
            await client.generate(**given)  # type: ignore[arg-type]  # wrong on purpose


async def test_client_refuses_negative_max_tokens_and_names_it(nobody: str) -> None:
    """The error names the parameter and its value."""
    async with AsyncClient(nobody) as client:
        with pytest.raises(InvalidArgumentError, match="max_tokens is -1") as caught:
            await client.generate("x", max_tokens=-1)

    assert caught.value.param == "max_tokens"


async def test_stream_cancels_call_when_left_early(router: FakeRouter, router_address: str) -> None:
    """Leaving the block frees what the fleet held."""
    router.endless = True
    async with AsyncClient(router_address) as client:
        async with client.stream("x", max_tokens=3) as stream:
            assert (await anext(stream)).token_ids == (11,)

        await asyncio.wait_for(router.cancelled.wait(), 5)


async def test_sync_stream_cancels_call_when_left_early(
    router: FakeRouter, router_address: str
) -> None:
    """The synchronous stream cancels as the asynchronous one does."""
    router.endless = True

    def leave_early() -> None:
        with Client(router_address) as client, client.stream("x", max_tokens=3) as stream:
            next(stream)

    await asyncio.to_thread(leave_early)

    await asyncio.wait_for(router.cancelled.wait(), 5)


async def test_stream_raises_when_cut_before_its_last_message(
    router: FakeRouter, router_address: str
) -> None:
    """A truncated answer is an error, never an end."""
    router.cut_short = True
    async with AsyncClient(router_address) as client:
        with pytest.raises(UnavailableError, match="ended after 3 tokens"):
            [delta async for delta in client.stream("x", max_tokens=9)]
    with pytest.raises(UnavailableError, match="ended after 3 tokens"):
        await asyncio.to_thread(_generate, router_address)


async def test_client_raises_servers_error_with_its_fields(
    router: FakeRouter, router_address: str
) -> None:
    """The class, message and fields that the server raised reach the caller."""
    async with AsyncClient(router_address) as client:
        router.failure = InvalidArgumentError("model 'x' is not served", param="model")
        with pytest.raises(InvalidArgumentError, match="model 'x'") as invalid:
            await client.generate("x")
        router.failure = OverloadedError("256 requests in flight", retry_after_s=2.5)
        with pytest.raises(OverloadedError) as overloaded:
            await client.generate("x")

    assert invalid.value.param == "model"
    assert overloaded.value.retry_after_s == 2.5


async def test_client_names_address_when_router_is_unreachable(nobody: str) -> None:
    """Both clients say whom they could not reach."""
    async with AsyncClient(nobody) as client:
        with pytest.raises(UnavailableError, match=f"cannot reach the router at {nobody}"):
            await client.models()
    with pytest.raises(UnavailableError, match=f"cannot reach the router at {nobody}"):
        await asyncio.to_thread(_generate, nobody)


async def test_client_raises_deadline_when_answer_takes_too_long(
    router: FakeRouter, router_address: str
) -> None:
    """A deadline of the call's own wins over the client's."""
    router.endless = True
    async with AsyncClient(router_address, timeout_s=60) as client:
        with pytest.raises(DeadlineError, match=r"within 0\.2 s"):
            await client.generate("x", timeout_s=0.2)


async def test_client_reads_models_and_status(router_address: str) -> None:
    """Models and route counts are our types."""
    async with AsyncClient(router_address) as client:
        models, status = await client.models(), await client.status()

    assert models == (sdk.Model("m", 99),)
    assert status.route_counts == (RouteCount("g0", "g1", 3),)
    assert (status.plan_epoch, status.ready, status.in_flight) == (7, True, 1)
