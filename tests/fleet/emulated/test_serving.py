"""An emulated fleet with nothing broken."""

from __future__ import annotations

from typing import Any

import pytest

from thunderserve.cli.emulated.options import KvlinkKind
from thunderserve.cli.load.expected import expected_tokens
from thunderserve.cli.load.history import Ending
from thunderserve.cli.load.invariants import violations
from thunderserve.core.trace import sample_trace


@pytest.mark.parametrize("kvlink", list(KvlinkKind))
async def test_fleet_answers_every_request_token_exact(stage: Any, kvlink: KvlinkKind) -> None:
    """The routes' every pair: caches are checked where they arrive, tokens where they end."""
    async with stage(speed=20.0, kvlink=kvlink) as scene:
        await scene.load(sample_trace(scene.fleet.problem.workload, requests=40))
    assert {record.ending for record in scene.history.requests} == {Ending.FINISHED}
    assert violations(scene.history, expected_tokens) == ()
    pairs = {(r.report.prefill_group, r.report.decode_group) for r in scene.history.requests}
    assert len(pairs) == len(scene.fleet.plan.routes)
