"""Two sidecars and a bad network for all tests of a module."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest_asyncio
from fault_arena import Arena, close_arena, open_arena

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import pytest


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def arena(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Arena]:
    arena = await open_arena(tmp_path_factory.mktemp("arena"))
    yield arena
    await close_arena(arena)
