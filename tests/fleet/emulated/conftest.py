"""Emulated fleets in this process, under load that is checked to the last token."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import pytest

from thunderserve.cli.emulated.options import EmulatedOptions, KvlinkKind
from thunderserve.cli.emulated.planned import problem_and_plan
from thunderserve.cli.emulated.scene import Scene, staged

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from contextlib import AbstractAsyncContextManager

    from thunderserve.control.planner.problem import Problem
    from thunderserve.core.plan import Plan


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
        async with staged(EmulatedOptions(speed=speed, kvlink=kvlink), *planned) as scene:
            yield scene

    return start
