"""A worker that dies. It is not started again, so this comes last."""

from __future__ import annotations

import asyncio
import os
import signal
from typing import TYPE_CHECKING

import pytest

from thunderserve.client import AsyncClient, ControlClient, ThunderServeError
from thunderserve.core.fleet import GroupState

if TYPE_CHECKING:
    from conftest import Fleet  # type: ignore[import-not-found]  # pytest's own path

pytestmark = [pytest.mark.sglang, pytest.mark.etcd]

REQUESTS = 12


async def test_killed_worker_is_left_out_and_its_requests_succeed_elsewhere(fleet: Fleet) -> None:
    """Only an answer that has begun may end in an error; afterwards the group is chosen no more."""
    async with AsyncClient(fleet.router) as client, ControlClient(fleet.control) as control:
        epoch = (await control.plan()).epoch
        running = [asyncio.create_task(_ask(client, number)) for number in range(REQUESTS)]
        await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)

        os.kill(fleet.processes["g2"], signal.SIGKILL)

        outcomes = await asyncio.gather(*running)
        later = await asyncio.gather(*(_ask(client, number) for number in range(4)))
        await _until_lost(control)
        plan = await control.plan()
        after_lease = await asyncio.gather(*(_ask(client, number) for number in range(4)))

    assert [o for o in outcomes if o.startswith("failed before its first token")] == []
    assert set(later) == {"answered by g1"}
    assert set(after_lease) == {"answered by g1"}
    assert plan.epoch > epoch
    assert "g2" not in {route.decode for route in plan.routes}
    assert "g2 was killed by signal 9" in fleet.errors.read_text()


async def _ask(client: AsyncClient, number: int) -> str:
    """What came of one request, for people."""
    begun = False
    try:
        async with client.stream(
            token_ids=[9, 8, 7 + number], max_tokens=16, ignore_eos=True
        ) as stream:
            async for delta in stream:
                begun = begun or bool(delta.token_ids)
            report = (await stream.result()).report
    except ThunderServeError as error:
        return f"failed {'after' if begun else 'before'} its first token: {error}"
    return f"answered by {report.decode_group}"


async def _until_lost(control: ControlClient) -> None:
    """The lease is 3 s long."""
    async with asyncio.timeout(15):
        while not any(  # noqa: ASYNC110 - another process
            status.group.id == "g2" and status.state is GroupState.LOST
            for status in await control.groups()
        ):
            await asyncio.sleep(0.1)
