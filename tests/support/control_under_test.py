"""The real control service in the test's own process."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from thunderserve.client.control import ControlClient
from thunderserve.control.bootstrap import serve
from thunderserve.runtime.channel import open_channel

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from thunderserve.control.config import ControlConfig


class ControlUnderTest:
    """Starts and stops the real service in this process; the store outlives a stop with etcd."""

    def __init__(self, config: ControlConfig) -> None:
        self.config = config
        self.addresses = (config.address,)
        self.client: ControlClient
        self._stack = AsyncExitStack()

    async def start(self) -> None:
        """Serve."""
        stopping = asyncio.Event()
        self._stack.push_async_callback(
            self._ended, asyncio.create_task(serve(self.config, stopping)), stopping
        )
        async with open_channel(self.config.address) as channel, asyncio.timeout(10):
            await channel.channel_ready()
        self.client = await self._stack.enter_async_context(ControlClient(self.config.address))

    async def stop(self) -> None:
        """Stop serving, orderly."""
        await self._stack.aclose()

    def forget(self) -> None:
        """Start with an empty store the next time."""
        self.config = replace(self.config, fleet=f"{self.config.fleet}-anew")

    @staticmethod
    async def _ended(task: asyncio.Task[None], stopping: asyncio.Event) -> None:
        stopping.set()
        await task


@asynccontextmanager
async def running(config: ControlConfig) -> AsyncIterator[ControlUnderTest]:
    control = ControlUnderTest(config)
    await control.start()
    try:
        yield control
    finally:
        await control.stop()
