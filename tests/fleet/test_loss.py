"""A worker that dies. It is not started again, so this comes last."""

from __future__ import annotations

import asyncio
import os
import signal
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from thunderserve.client import AsyncClient, ControlClient, ThunderServeError
from thunderserve.core.fleet import GroupState

if TYPE_CHECKING:
    from conftest import Fleet  # type: ignore[import-not-found]  # pytest's own path

# Whichever test comes first waits for the fleet.
pytestmark = [pytest.mark.sglang, pytest.mark.etcd, pytest.mark.timeout(300)]

REQUESTS = 12
TOKENS = 16


@dataclass(frozen=True)
class Outcome:
    """What came of one request."""

    begun: bool
    failure: str = ""
    decode: str = ""
    retries: int = 0


async def test_killed_worker_is_left_out_and_its_requests_succeed_elsewhere(
    fleet: Fleet, prompts: tuple[tuple[int, ...], ...]
) -> None:
    """Only an answer that has begun may end in an error; afterwards the group is chosen no more."""
    longest = prompts[-1]
    begun = asyncio.Event()
    async with AsyncClient(fleet.router) as client, ControlClient(fleet.control) as control:
        epoch = (await control.plan()).epoch
        # One group prefills them one after another, so most wait when the first one answers.
        running = [
            asyncio.create_task(_ask(client, longest[number:], begun)) for number in range(REQUESTS)
        ]
        await asyncio.wait_for(begun.wait(), 60)

        os.kill(fleet.processes["g2"], signal.SIGKILL)

        outcomes = await asyncio.gather(*running)
        later = await asyncio.gather(*(_ask(client, (9, 8, n), begun) for n in range(4)))
        await _until_lost(control)
        plan = await control.plan()
        after_lease = await asyncio.gather(*(_ask(client, (9, 8, n), begun) for n in range(4)))

    assert [o for o in outcomes if o.failure and not o.begun] == []
    assert sum(o.retries for o in outcomes) > 0
    assert {(o.failure, o.decode) for o in (*later, *after_lease)} == {("", "g1")}
    assert plan.epoch > epoch
    assert "g2" not in {route.decode for route in plan.routes}
    assert "g2 was killed by signal 9" in fleet.errors.read_text()


async def _ask(client: AsyncClient, prompt: tuple[int, ...], first: asyncio.Event) -> Outcome:
    begun = False
    try:
        async with client.stream(token_ids=prompt, max_tokens=TOKENS, ignore_eos=True) as stream:
            async for delta in stream:
                begun = begun or bool(delta.token_ids)
                first.set()
            answer = await stream.result()
    except ThunderServeError as error:
        return Outcome(begun, failure=str(error))
    assert len(answer.token_ids) == TOKENS
    return Outcome(begun, decode=answer.report.decode_group, retries=answer.report.retries)


async def _until_lost(control: ControlClient) -> None:
    """The lease is 3 s long."""
    async with asyncio.timeout(15):
        while not any(  # noqa: ASYNC110 - another process
            status.group.id == "g2" and status.state is GroupState.LOST
            for status in await control.groups()
        ):
            await asyncio.sleep(0.1)
