"""What routers record reaches whoever watches the workload."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from redis.asyncio import Redis
from redis_server import RedisServer

from thunderserve.core.errors import InvalidArgumentError
from thunderserve.core.finished import FinishedRequest, Outcome
from thunderserve.runtime.finished_requests import (
    MemoryRequests,
    RedisFeed,
    finished_from_fields,
    finished_to_fields,
    stream_key,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    Until = Callable[..., Awaitable[None]]


def finished(number: int) -> FinishedRequest:
    return FinishedRequest(1000.5, number, 7, 0.25, 0.01, Outcome.FINISHED)


@pytest.fixture
async def redis(free_port: Callable[[], int]) -> AsyncIterator[RedisServer]:
    server = RedisServer(free_port())
    await server.start()
    yield server
    await server.stop()


async def write(redis: RedisServer, *requests: FinishedRequest) -> None:
    async with Redis.from_url(redis.url) as client:
        for request in requests:
            await client.xadd(stream_key("demo"), finished_to_fields(request))


async def test_memory_requests_are_read_once_and_from_now_on() -> None:
    """What was recorded before anybody read is kept, and not read."""
    requests = MemoryRequests()
    requests.record(finished(1))
    batches = requests.batches()
    reading = asyncio.create_task(anext(batches))
    await asyncio.sleep(0)
    requests.record(finished(2))
    requests.record(finished(3))

    assert await reading == (finished(2), finished(3))
    assert len(requests.requests()) == 3
    await batches.aclose()


@pytest.mark.redis
async def test_redis_feed_reads_what_is_written_from_now_on(redis: RedisServer) -> None:
    """In order, each once; an entry that is none is skipped."""
    await write(redis, finished(1))
    feed = RedisFeed(redis.url, "demo")
    batches = feed.batches()
    assert await anext(batches) == ()  # it listens now
    await write(redis, finished(2))
    async with Redis.from_url(redis.url) as client:
        await client.xadd(stream_key("demo"), {"something": "else"})
    await write(redis, finished(3))

    seen: list[FinishedRequest] = []
    async with asyncio.timeout(10):
        while len(seen) < 2:
            seen += await anext(batches)

    assert seen == [finished(2), finished(3)]
    await batches.aclose()
    await feed.close()


@pytest.mark.redis
async def test_redis_feed_goes_on_when_redis_was_away(
    redis: RedisServer, caplog: pytest.LogCaptureFixture, until: Until
) -> None:
    """One warning, which does not name the address; then requests arrive again."""
    seen: list[FinishedRequest] = []
    feed = RedisFeed(redis.url, "demo")

    async def read() -> None:
        async for batch in feed.batches():
            seen.extend(batch)

    reading = asyncio.create_task(read())
    await redis.stop()
    await until(lambda: "is not seen" in caplog.text)
    await redis.start()
    async with asyncio.timeout(10):
        while not seen:
            await write(redis, finished(5))
            await asyncio.sleep(0.05)

    reading.cancel()
    await asyncio.gather(reading, return_exceptions=True)
    assert seen[0] == finished(5)
    assert caplog.text.count("is not seen") == 1
    assert str(redis.port) not in caplog.text
    await feed.close()


def test_finished_from_fields_refuses_what_is_none() -> None:
    """The error shows the entry."""
    with pytest.raises(InvalidArgumentError, match="not a finished request"):
        finished_from_fields({b"prompt_tokens": b"many"})
