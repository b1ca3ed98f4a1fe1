"""Waiting for work or for a stop, whichever comes first."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Coroutine

__all__ = ["unless_set"]

_Result = TypeVar("_Result")


async def unless_set(
    event: asyncio.Event, work: Coroutine[Any, Any, _Result]
) -> tuple[_Result] | None:
    """What `work` returns, in a tuple of one; None when `event` is set first: it is cancelled."""
    task = asyncio.create_task(work)
    stop = asyncio.create_task(event.wait())
    try:
        await asyncio.wait({task, stop}, return_when=asyncio.FIRST_COMPLETED)
        return (await task,) if task.done() else None
    finally:
        task.cancel()
        stop.cancel()
        await asyncio.gather(task, stop, return_exceptions=True)
