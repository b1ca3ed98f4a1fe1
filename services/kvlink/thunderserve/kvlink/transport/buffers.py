"""A fixed number of buffers: what all transfers together may hold of one process's memory."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

__all__ = ["BufferPool"]


class BufferPool:
    """Buffers of one size, allocated once; whoever finds none free waits."""

    def __init__(self, buffer_count: int, buffer_bytes: int) -> None:
        self.buffer_bytes = buffer_bytes
        self._free = [bytearray(buffer_bytes) for _ in range(buffer_count)]
        self._available = asyncio.Semaphore(buffer_count)

    @asynccontextmanager
    async def take(self, size: int) -> AsyncIterator[memoryview]:
        """Lend a view of `size` bytes, at most `buffer_bytes`, until the block ends."""
        async with self._available:
            buffer = self._free.pop()
            try:
                yield memoryview(buffer)[:size]
            finally:
                self._free.append(buffer)
