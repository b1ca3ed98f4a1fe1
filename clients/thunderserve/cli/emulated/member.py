"""One service of the fleet, in this process: started, stopped, or gone at once."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from thunderserve.cli.emulated.connections import drop_connections
from thunderserve.core.errors import PreconditionError

__all__ = ["Member", "Serve"]

Serve = Callable[[asyncio.Event], Awaitable[None]]


class Member:
    """A service that can be started again and again.

    Args:
        name: For people.
        serve: Runs it until the event is set.
        addresses: `host:port` each, where it listens.
    """

    def __init__(self, name: str, serve: Serve, addresses: Sequence[str]) -> None:
        self.name = name
        self._serve = serve
        self._addresses = tuple(addresses)
        self._stopping = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    @property
    def task(self) -> asyncio.Task[None]:
        """The running service; PreconditionError when it does not run."""
        if self._task is None:
            raise PreconditionError(f"{self.name} does not run")
        return self._task

    @property
    def running(self) -> bool:
        """True until it has ended."""
        return self._task is not None and not self._task.done()

    def start(self) -> None:
        """Begin to serve; PreconditionError when it does so already."""
        if self.running:
            raise PreconditionError(f"{self.name} runs already")
        self._stopping = asyncio.Event()
        self._task = asyncio.create_task(self._run(self._stopping), name=self.name)

    async def stop(self) -> None:
        """Ask it to end, as SIGTERM does, and wait until it has."""
        self._stopping.set()
        if self._task is not None:
            await asyncio.gather(self._task, return_exceptions=True)

    async def kill(self) -> None:
        """End it as SIGKILL does: connections drop, state is lost, nobody is told."""
        drop_connections(self._addresses)
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)

    async def _run(self, stopping: asyncio.Event) -> None:
        await self._serve(stopping)
