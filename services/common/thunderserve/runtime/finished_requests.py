"""Finished requests on their way from the routers to the monitor: through Redis, or in memory.

A feed is losable: what was recorded while nobody read, or while Redis was away, may be missing.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Protocol

from redis.asyncio import Redis
from redis.exceptions import RedisError

from thunderserve.core.errors import InvalidArgumentError
from thunderserve.core.finished import FinishedRequest

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterable, Mapping

    from redis.typing import EncodableT, FieldT

__all__ = [
    "MemoryRequests",
    "RedisFeed",
    "RequestFeed",
    "finished_from_fields",
    "finished_to_fields",
    "stream_key",
]

_log = logging.getLogger(__name__)

_KEPT_REQUESTS = 10_000
_BATCH_REQUESTS = 1_000
_BLOCK_MS = 500
_RETRY_INTERVAL_S = 1.0


class RequestFeed(Protocol):
    """What has finished, in batches, as it is recorded."""

    def batches(self) -> AsyncGenerator[tuple[FinishedRequest, ...], None]:
        """Requests that are recorded from now on; for ever. A batch may be empty."""


class MemoryRequests:
    """Kept in this process: routers record into it, and one monitor may read."""

    def __init__(self) -> None:
        self._kept: deque[FinishedRequest] = deque(maxlen=_KEPT_REQUESTS)
        self._unread: deque[FinishedRequest] = deque(maxlen=_KEPT_REQUESTS)
        self._recorded = asyncio.Event()

    def record(self, request: FinishedRequest) -> None:
        """Note a finished request; the oldest makes room."""
        self._kept.append(request)
        self._unread.append(request)
        self._recorded.set()

    def requests(self) -> tuple[FinishedRequest, ...]:
        """The newest, oldest first."""
        return tuple(self._kept)

    async def batches(self) -> AsyncGenerator[tuple[FinishedRequest, ...], None]:
        """See `RequestFeed.batches`."""
        self._unread.clear()
        self._recorded.clear()
        while True:
            await self._recorded.wait()
            self._recorded.clear()
            batch = tuple(self._unread)
            self._unread.clear()
            yield batch


class RedisFeed:
    """Follows a fleet's stream.

    Args:
        url: For example `redis://localhost:6379/0`; it is never logged, it may hold a password.
        fleet: Names the stream.
    """

    def __init__(self, url: str, fleet: str) -> None:
        self._redis = Redis.from_url(url, socket_connect_timeout=1.0, protocol=2)
        self._key = stream_key(fleet)
        self._away = False

    async def batches(self) -> AsyncGenerator[tuple[FinishedRequest, ...], None]:
        """See `RequestFeed.batches`; while Redis is away there are none, and one warning."""
        last = b""
        while True:
            try:
                last = last or await self._newest()
                entries = await self._entries_after(last)
            except (RedisError, OSError) as error:
                self._note_away(error)
                await asyncio.sleep(_RETRY_INTERVAL_S)
                continue
            self._away = False
            if entries:
                last = entries[-1][0]
            yield _readable(fields for _, fields in entries)

    async def close(self) -> None:
        """Free the connection."""
        await self._redis.aclose()

    async def _newest(self) -> bytes:
        # Not "$": it would mean another entry at every read, and lose those in between.
        found: Any = await self._redis.xrevrange(self._key, count=1)
        return found[0][0] if found else b"0-0"

    async def _entries_after(self, last: bytes) -> list[tuple[bytes, dict[bytes, bytes]]]:
        # Protocol 2: a list of (key, entries), and none when none came in time.
        found: Any = await self._redis.xread(
            {self._key: last}, count=_BATCH_REQUESTS, block=_BLOCK_MS
        )
        return found[0][1] if found else []

    def _note_away(self, error: Exception) -> None:
        if not self._away:
            _log.warning("the workload is not seen: Redis: %s", type(error).__name__)
        self._away = True


def stream_key(fleet: str) -> str:
    """The Redis stream of a fleet's finished requests."""
    return f"thunderserve:{fleet}:requests"


def finished_to_fields(request: FinishedRequest) -> dict[FieldT, EncodableT]:
    """The fields of one entry."""
    return dict(asdict(request).items())


def finished_from_fields(fields: Mapping[bytes, bytes]) -> FinishedRequest:
    """Read one entry; fields that a later release adds are skipped.

    Raises:
        InvalidArgumentError: A field is missing or is no number.
    """
    try:
        return FinishedRequest(
            arrived_unix_s=float(fields[b"arrived_unix_s"]),
            prompt_tokens=int(fields[b"prompt_tokens"]),
            output_tokens=int(fields[b"output_tokens"]),
            ttft_s=float(fields[b"ttft_s"]),
            tpot_s=float(fields[b"tpot_s"]),
            outcome=fields[b"outcome"].decode(),
        )
    except (KeyError, ValueError) as error:
        raise InvalidArgumentError(f"not a finished request: {dict(fields)}: {error}") from error


def _readable(entries: Iterable[dict[bytes, bytes]]) -> tuple[FinishedRequest, ...]:
    """Those that can be read; another release may have written the others."""
    requests = []
    for fields in entries:
        try:
            requests.append(finished_from_fields(fields))
        except InvalidArgumentError as error:
            _log.warning("%s", error)
    return tuple(requests)
