"""Threads for the codec's arithmetic, which holds no interpreter lock."""

from __future__ import annotations

import asyncio
import os
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["CodecThreads"]

Result = TypeVar("Result")
# Below this a change of threads takes longer than the work.
_INLINE_BYTES = 64 * 1024


class CodecThreads:
    """One for each core; not the event loop's own, which others may block."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(os.cpu_count(), "kvlink-codec")

    async def run(self, raw_bytes: int, work: Callable[[], Result]) -> Result:
        """Do `work` on that many bytes of values, beside the event loop unless it is little."""
        if raw_bytes <= _INLINE_BYTES:
            return work()
        return await asyncio.get_running_loop().run_in_executor(self._pool, work)

    def close(self) -> None:
        """End the threads; what they do is done first."""
        self._pool.shutdown()
