"""Finished requests reach the window, and never hold up a request."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from redis.asyncio import Redis
from redis_server import RedisServer

from thunderserve.core.finished import FinishedRequest, Outcome
from thunderserve.router.workload_window import MemoryWindow, RedisWindow
from thunderserve.runtime.finished_requests import stream_key

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    Until = Callable[..., Awaitable[None]]


def finished(number: int) -> FinishedRequest:
    return FinishedRequest(
        arrived_unix_s=1000.5 + number,
        prompt_tokens=number,
        output_tokens=7,
        ttft_s=0.25,
        tpot_s=0.01,
        outcome=Outcome.FINISHED,
    )


async def entries_of(redis: RedisServer) -> list[dict[str, str]]:
    """The stream of the fleet `demo`."""
    async with Redis.from_url(redis.url, decode_responses=True) as client:
        return [fields for _, fields in await client.xrange(stream_key("demo"))]


@pytest.fixture
async def redis(free_port: Callable[[], int]) -> AsyncIterator[RedisServer]:
    server = RedisServer(free_port())
    await server.start()
    yield server
    await server.stop()


async def wait_entries(redis: RedisServer, count: int) -> list[dict[str, str]]:
    async with asyncio.timeout(10):
        while len(entries := await entries_of(redis)) < count:  # noqa: ASYNC110 - in another process
            await asyncio.sleep(0.02)
    return entries


async def test_memory_window_keeps_the_newest() -> None:
    """In order."""
    async with MemoryWindow() as window:
        window.record(finished(1))
        window.record(finished(2))

        assert [request.prompt_tokens for request in window.requests()] == [1, 2]


@pytest.mark.redis
async def test_redis_window_writes_every_field_to_the_stream(redis: RedisServer) -> None:
    """The control plane reads them by name."""
    async with RedisWindow(redis.url, "demo") as window:
        for number in range(200):
            window.record(finished(number))
        entries = await wait_entries(redis, 200)

    assert [entry["prompt_tokens"] for entry in entries] == [str(n) for n in range(200)]
    assert entries[3] == {
        "arrived_unix_s": "1003.5",
        "prompt_tokens": "3",
        "output_tokens": "7",
        "ttft_s": "0.25",
        "tpot_s": "0.01",
        "outcome": "finished",
    }


@pytest.mark.redis
async def test_redis_window_writes_what_waits_when_it_closes(redis: RedisServer) -> None:
    """An orderly stop loses nothing."""
    async with RedisWindow(redis.url, "demo") as window:
        window.record(finished(1))

    assert len(await entries_of(redis)) == 1


@pytest.mark.redis
async def test_redis_window_warns_once_and_catches_up_when_redis_was_away(
    redis: RedisServer, caplog: pytest.LogCaptureFixture, until: Until
) -> None:
    """No error, one warning, and the requests of the meantime arrive."""
    async with RedisWindow(redis.url, "demo") as window:
        await redis.stop()
        window.record(finished(1))
        await until(lambda: "stay in memory" in caplog.text)
        window.record(finished(2))
        await redis.start()
        entries = await wait_entries(redis, 2)

    assert [entry["prompt_tokens"] for entry in entries] == ["1", "2"]
    assert caplog.text.count("stay in memory") == 1


async def test_redis_window_keeps_its_password_to_itself(
    caplog: pytest.LogCaptureFixture, until: Until, free_port: Callable[[], int]
) -> None:
    """Logs name the failure, not the address."""
    url = f"redis://:secret@127.0.0.1:{free_port()}/0"
    async with RedisWindow(url, "demo") as window:
        window.record(finished(1))
        await until(lambda: "stay in memory" in caplog.text)

    assert "secret" not in caplog.text
