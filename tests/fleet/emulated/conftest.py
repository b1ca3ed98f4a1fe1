"""Emulated fleets in this process, under load that is checked to the last token."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import pytest

from thunderserve.cli.emulated.faults import Faults
from thunderserve.cli.emulated.fleet import EmulatedFleet
from thunderserve.cli.emulated.options import EmulatedOptions, KvlinkKind
from thunderserve.cli.emulated.planned import problem_and_plan
from thunderserve.cli.load.ask import GrpcAsker
from thunderserve.cli.load.expected import VOCABULARY
from thunderserve.cli.load.history import History
from thunderserve.cli.load.player import play
from thunderserve.core.trace import sample_trace

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from contextlib import AbstractAsyncContextManager

    from thunderserve.control.planner.problem import Problem
    from thunderserve.core.plan import Plan

TIMEOUT_S = 60.0


class Scene:
    """A fleet, what may be broken in it, and the history of what clients saw."""

    def __init__(self, fleet: EmulatedFleet) -> None:
        self.fleet = fleet
        self.history = History(lambda: time.monotonic() * fleet.options.speed)
        self.faults = Faults(fleet, self.history)

    async def load(self, requests: int, rate_rps: float | None = None) -> None:
        """So many requests of the planned workload; returns when all have ended."""
        workload = self.fleet.problem.workload
        workload = workload if rate_rps is None else workload.with_rate(rate_rps)
        trace = sample_trace(workload, requests=requests)
        async with GrpcAsker(self.fleet.layout.router.address, TIMEOUT_S) as asker:
            speed = self.fleet.options.speed
            await play(trace, asker, self.history, speed=speed, vocabulary=VOCABULARY)


@pytest.fixture(scope="session")
def planned() -> tuple[Problem, Plan]:
    """The paper's 32 GPUs for the conversation trace; planned once."""
    return problem_and_plan(EmulatedOptions())


@pytest.fixture
def stage(
    planned: tuple[Problem, Plan],
) -> Callable[..., AbstractAsyncContextManager[Scene]]:
    """Starts fleets, each for the length of a block."""

    @contextlib.asynccontextmanager
    async def start(
        speed: float = 10.0, kvlink: KvlinkKind = KvlinkKind.MODELLED
    ) -> AsyncIterator[Scene]:
        options = EmulatedOptions(speed=speed, kvlink=kvlink)
        with TemporaryDirectory(prefix="thunderserve-") as run:
            async with EmulatedFleet(options, *planned, Path(run)) as fleet:
                await fleet.start()
                yield Scene(fleet)

    return start
