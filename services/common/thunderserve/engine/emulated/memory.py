"""The KV memory of an emulated engine: tokens set aside and given back."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

__all__ = ["KvMemory"]


class KvMemory:
    """So many tokens of KV cache; who finds no room waits, first come, first served."""

    def __init__(self, capacity_tokens: int) -> None:
        self.capacity_tokens = capacity_tokens
        self._free_tokens = capacity_tokens
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    @property
    def used_tokens(self) -> int:
        """Set aside now."""
        return self.capacity_tokens - self._free_tokens

    @contextlib.asynccontextmanager
    async def reserved(self, tokens: int) -> AsyncIterator[None]:
        """Hold so many while the block runs; they must not exceed the capacity."""
        await self._take(tokens)
        try:
            yield
        finally:
            self._free_tokens += tokens
            self._grant()

    async def _take(self, tokens: int) -> None:
        granted = asyncio.get_running_loop().create_future()
        place = (tokens, granted)
        self._waiting.append(place)
        self._grant()
        try:
            await granted
        except asyncio.CancelledError:
            if place in self._waiting:
                self._waiting.remove(place)
            elif not granted.cancelled():  # granted and cancelled at one moment
                self._free_tokens += tokens
            self._grant()
            raise

    def _grant(self) -> None:
        while self._waiting and self._waiting[0][0] <= self._free_tokens:
            tokens, granted = self._waiting.popleft()
            if not granted.done():
                self._free_tokens -= tokens
                granted.set_result(None)
