"""Finished requests, for the control plane's view of the workload: shared through Redis, or local.

Losing records is acceptable, slowing or failing a request is not: `record` never waits, and a
Redis that is away costs one warning.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from typing import TYPE_CHECKING, Protocol, Self

from redis.asyncio import Redis
from redis.exceptions import RedisError

from thunderserve.runtime.finished_requests import MemoryRequests, finished_to_fields, stream_key

if TYPE_CHECKING:
    from types import TracebackType

    from thunderserve.core.finished import FinishedRequest

__all__ = ["MemoryWindow", "RedisWindow", "WorkloadWindow"]

_log = logging.getLogger(__name__)

WINDOW_REQUESTS = 10_000
BATCH_INTERVAL_S = 0.1
RETRY_INTERVAL_S = 1.0
FLUSH_TIMEOUT_S = 1.0


class WorkloadWindow(Protocol):
    """The newest finished requests; an asynchronous context manager."""

    def record(self, request: FinishedRequest) -> None:
        """Note a finished request; never waits and never fails."""

    async def __aenter__(self) -> Self: ...

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None: ...


class MemoryWindow(MemoryRequests):
    """The window of a router without Redis."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        return None


class RedisWindow:
    """Writes to a Redis stream, in batches, beside the requests.

    Args:
        url: For example `redis://localhost:6379/0`; it is never logged, it may hold a password.
        fleet: Names the stream.
    """

    def __init__(self, url: str, fleet: str) -> None:
        self._redis = Redis.from_url(url, socket_connect_timeout=1.0, socket_timeout=1.0)
        self._key = stream_key(fleet)
        self._waiting: deque[FinishedRequest] = deque(maxlen=WINDOW_REQUESTS)
        self._wake = asyncio.Event()
        self._away = False
        self._task: asyncio.Task[None] | None = None

    def record(self, request: FinishedRequest) -> None:
        """Note a finished request; while Redis is away the oldest makes room."""
        self._waiting.append(request)
        self._wake.set()

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._write_for_ever(), name="workload-window")
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._try_write(), FLUSH_TIMEOUT_S)
        await self._redis.aclose()

    async def _write_for_ever(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            written = await self._try_write()
            await asyncio.sleep(BATCH_INTERVAL_S if written else RETRY_INTERVAL_S)
            if not written:
                self._wake.set()

    async def _try_write(self) -> bool:
        """Write all that waits; False, and everything kept, when Redis is away."""
        batch = tuple(self._waiting)
        if not batch:
            return True
        try:
            async with self._redis.pipeline(transaction=False) as pipeline:
                for request in batch:
                    pipeline.xadd(self._key, finished_to_fields(request), maxlen=WINDOW_REQUESTS)
                await pipeline.execute()
        except (RedisError, OSError) as error:
            self._note_away(error)
            return False
        self._note_back()
        self._forget(batch)
        return True

    def _forget(self, batch: tuple[FinishedRequest, ...]) -> None:
        """Drop what was written; newer ones may have pushed some of it out meanwhile."""
        written = {id(request) for request in batch}
        while self._waiting and id(self._waiting[0]) in written:
            self._waiting.popleft()

    def _note_away(self, error: Exception) -> None:
        if not self._away:
            _log.warning("finished requests stay in memory: %s", type(error).__name__)
        self._away = True

    def _note_back(self) -> None:
        if self._away:
            _log.info("Redis is back; finished requests are written again")
        self._away = False
