"""A replica's loops: started together, watched, and ended together."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

from thunderserve.core.errors import UnavailableError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Coroutine, Iterable
    from typing import Any

    from thunderserve.control.leadership import Leadership
    from thunderserve.control.observer import Observer

__all__ = ["raise_failed", "running", "wait_stopped"]


@contextlib.asynccontextmanager
async def running(
    loops: Iterable[Coroutine[Any, Any, None]], observer: Observer, leadership: Leadership
) -> AsyncIterator[list[asyncio.Task[None]]]:
    """The loops; what the store knows is known when the block begins, and nobody leads after it."""
    tasks = [asyncio.create_task(loop) for loop in loops]
    loaded = asyncio.create_task(observer.wait_loaded())
    try:
        await asyncio.wait([loaded, *tasks], return_when=asyncio.FIRST_COMPLETED)
        yield tasks
    finally:
        loaded.cancel()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        with contextlib.suppress(UnavailableError):
            await leadership.resign()


async def wait_stopped(stopping: asyncio.Event, tasks: list[asyncio.Task[None]]) -> None:
    """Until told to stop, or until a loop fails: a replica without one is none."""
    stopped = asyncio.create_task(stopping.wait())
    done, _ = await asyncio.wait([stopped, *tasks], return_when=asyncio.FIRST_COMPLETED)
    stopped.cancel()
    raise_failed(done)


def raise_failed(tasks: Iterable[asyncio.Task[Any]]) -> None:
    """Raise what a loop ended with; a group of tasks that failed for one reason says that one."""
    for task in tasks:
        if not task.done() or (error := task.exception()) is None:
            continue
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        raise error
