"""Sidecars and engines over real sockets, without SGLang."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import pytest
from kvlink_sides import LAYOUT, Side, random_cache, start_side

from thunderserve.core.plan import Phase

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    import numpy as np

    from thunderserve.core.kv import KvLayout


@pytest.fixture
def layout() -> KvLayout:
    return LAYOUT


@pytest.fixture
def make_cache() -> Callable[..., np.ndarray]:
    return random_cache


@pytest.fixture
async def make_side(tmp_path: Path) -> AsyncIterator[Callable[..., Any]]:
    """Start sidecars with a registered engine; all are stopped at the end."""
    async with contextlib.AsyncExitStack() as stack:
        count = 0

        async def make(phase: Phase, layout: KvLayout = LAYOUT, **settings: Any) -> Side:
            nonlocal count
            count += 1
            side = await start_side(tmp_path / str(count), phase, layout, **settings)
            stack.push_async_callback(side.stop)
            return side

        yield make


@pytest.fixture
async def pair(make_side: Callable[..., Any]) -> tuple[Side, Side]:
    """A prefill and a decode side with small frames, so that a cache takes several."""
    settings = {"max_frame_bytes": 32 * 1024}
    return await make_side(Phase.PREFILL, **settings), await make_side(Phase.DECODE, **settings)
