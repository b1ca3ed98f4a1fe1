"""An emulated fleet with everything that breaks it, loads it and watches it."""

from __future__ import annotations

import asyncio
import contextlib
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from thunderserve.cli.emulated.faults import Faults
from thunderserve.cli.emulated.fleet import EmulatedFleet
from thunderserve.cli.load.ask import GrpcAsker
from thunderserve.cli.load.expected import VOCABULARY
from thunderserve.cli.load.history import History
from thunderserve.cli.load.player import play, watch_plans

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from thunderserve.cli.emulated.options import EmulatedOptions
    from thunderserve.control.planner.problem import Problem
    from thunderserve.core.plan import Plan
    from thunderserve.core.trace import Trace

__all__ = ["Scene", "staged"]

_TIMEOUT_S = 120.0


class Scene:
    """A running fleet.

    Attributes:
        history: What clients and observers saw; its seconds are emulated ones.
        faults: What may be broken.
    """

    def __init__(self, fleet: EmulatedFleet) -> None:
        self.fleet = fleet
        self.history = History(lambda: time.monotonic() * fleet.options.speed)
        self.faults = Faults(fleet, self.history)

    async def load(self, trace: Trace, *, seed: int = 0) -> None:
        """Send a trace's requests when they are due; returns when all have ended."""
        async with GrpcAsker(self.router, _TIMEOUT_S) as asker:
            speed = self.fleet.options.speed
            await play(trace, asker, self.history, speed=speed, seed=seed, vocabulary=VOCABULARY)

    @contextlib.asynccontextmanager
    async def watched(self) -> AsyncIterator[None]:
        """Note in the history which plans control and router follow, during the block."""
        watching = asyncio.create_task(watch_plans(self.history, self.control, self.router))
        try:
            yield
        finally:
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)

    @property
    def control(self) -> str:
        """Where the control plane is asked; several replicas are separated by commas."""
        return ",".join(self.fleet.layout.router.control_addresses)

    @property
    def router(self) -> str:
        """Where requests go, by gRPC."""
        return self.fleet.layout.router.address


@contextlib.asynccontextmanager
async def staged(options: EmulatedOptions, problem: Problem, plan: Plan) -> AsyncIterator[Scene]:
    """A fleet for the length of a block, ready when it begins."""
    with TemporaryDirectory(prefix="thunderserve-") as run:
        async with EmulatedFleet(options, problem, plan, Path(run)) as fleet:
            await fleet.start()
            yield Scene(fleet)
