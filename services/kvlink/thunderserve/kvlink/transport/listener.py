"""Accepts connections on a Unix socket and runs one task for each."""

from __future__ import annotations

import asyncio
import logging
from functools import partial
from typing import TYPE_CHECKING

from thunderserve.core.errors import ThunderServeError, UnavailableError
from thunderserve.kvlink.transport.stream import ByteStream

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

__all__ = ["Listener"]

_log = logging.getLogger(__name__)


class Listener:
    """Runs `handler(stream)` for every connection and closes the stream when it returns."""

    def __init__(self, handler: Callable[[ByteStream], Awaitable[None]]) -> None:
        self._handler = handler
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._path: Path | None = None

    async def listen_unix(self, path: Path) -> None:
        """A socket file for this user alone; a stale one of a dead process is replaced."""
        loop = asyncio.get_running_loop()
        try:
            _make_room(path)
            self._server = await loop.create_unix_server(self._accept, str(path))
        except OSError as error:
            raise UnavailableError(f"cannot listen on {path}: {error}") from error
        self._path = path

    async def close(self) -> None:
        """Stop accepting, end every connection, wait for their tasks."""
        if self._server is not None:
            self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._path is not None:
            self._path.unlink(missing_ok=True)

    def _accept(self) -> ByteStream:
        return ByteStream(self._start)

    def _start(self, stream: ByteStream) -> None:
        task = asyncio.get_running_loop().create_task(self._run(stream))
        self._tasks.add(task)
        task.add_done_callback(partial(self._forget, stream))

    def _forget(self, stream: ByteStream, task: asyncio.Task[None]) -> None:
        """Also of a task that was cancelled before it began, which closed nothing."""
        self._tasks.discard(task)
        stream.close()

    async def _run(self, stream: ByteStream) -> None:
        try:
            await self._handler(stream)
        except ThunderServeError as error:
            _log.info("connection ended: %s", error)
        except Exception:  # noqa: BLE001 - one connection's bug must not end the others
            _log.exception("connection handler failed")


def _make_room(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    path.unlink(missing_ok=True)
