"""etcd and the control plane lose processes while somebody writes; prints what it cost.

`make outages-test`; some minutes, most of them waiting through outages of a minute.
"""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING

import pytest

from thunderserve.client.control import ControlClient

if TYPE_CHECKING:
    from conftest import Stage

DOWN_S = 60.0
RESUME_S = 2.0
pytestmark = [pytest.mark.outages, pytest.mark.timeout(600)]


def now_s() -> float:
    return asyncio.get_running_loop().time()


def report(name: str, **figures: object) -> None:
    print(json.dumps({"scenario": name, **figures}))  # noqa: T201 - what this is run for


async def test_writes_go_on_when_each_etcd_leader_is_killed_in_turn(stage: Stage) -> None:
    """One member is always away or behind; a majority is all it takes."""
    gaps_s = []
    for _ in range(3):
        killed_s = now_s()
        (await asyncio.to_thread(stage.etcd.leader)).stop()
        await stage.writer.acks(10)
        gaps_s.append(round(stage.writer.longest_gap_s(killed_s), 2))
        await asyncio.to_thread(stage.etcd.start)
        await stage.writer.acks(10)
    counts = await stage.check()
    report("etcd leaders killed in turn", write_gaps_s=gaps_s, **counts)
    assert counts["lost"] == 0


@pytest.mark.parametrize("down", [2, 3])
async def test_control_serves_reads_and_resumes_when_etcd_was_away(stage: Stage, down: int) -> None:
    """No change is acknowledged meanwhile, no member is taken for lost, and plans are read."""
    for member in stage.etcd.members[:down]:
        member.stop()
    await asyncio.sleep(1)  # what was under way ends
    acked, followed = len(stage.writer.acked_s), [r.watch.epoch for r in stage.routers]
    reads = 0
    until_s = now_s() + DOWN_S
    while now_s() < until_s:
        for address in stage.control.addresses:
            async with ControlClient(address, timeout_s=2.0) as client:
                assert (await client.plan()).epoch >= max(followed)
                assert len(await client.groups()) == 3
            reads += 2
        await asyncio.sleep(1)
    assert len(stage.writer.acked_s) == acked
    assert [router.watch.epoch for router in stage.routers] == followed
    await asyncio.to_thread(stage.etcd.start)
    quorum_s = now_s()
    await stage.writer.acks(1)
    resumed_s = stage.writer.acked_s[-1] - quorum_s
    await stage.writer.acks(10)
    counts = await stage.check()
    async with ControlClient(",".join(stage.control.addresses)) as client:
        plans = await client.plans()
    lost = sum("is lost" in plan.reason for plan in plans)
    report(
        f"{down} of 3 etcd members down for {DOWN_S:.0f} s",
        resumed_s=round(resumed_s, 2),
        reads_served=reads,
        members_taken_for_lost=lost,
        **counts,
    )
    assert (counts["lost"], lost) == (0, 0), [plan.reason for plan in plans]
    assert resumed_s <= RESUME_S


async def test_another_replica_leads_when_each_leader_is_killed_in_turn(stage: Stage) -> None:
    """Members that were attached to it are back elsewhere before their leases end."""
    gaps_s = []
    for _ in range(3):
        leader, killed_s = await asyncio.to_thread(stage.control.leader), now_s()
        stage.control.kill(leader)
        await stage.writer.acks(10)
        gaps_s.append(round(stage.writer.longest_gap_s(killed_s), 2))
        stage.control.start()
        await stage.settled(leader)
    counts = await stage.check()
    async with ControlClient(",".join(stage.control.addresses)) as client:
        plans = await client.plans()
    lost = sum("is lost" in plan.reason for plan in plans)
    report(
        "control leaders killed in turn", write_gaps_s=gaps_s, members_taken_for_lost=lost, **counts
    )
    assert (counts["lost"], lost) == (0, 0), [plan.reason for plan in plans]


async def test_exactly_one_leader_wins_when_one_froze_past_its_lease(stage: Stage) -> None:
    """The frozen one wakes believing that it leads; the store refuses it, and it follows."""
    gaps_s = []
    for _ in range(2):
        frozen, since_s = await asyncio.to_thread(stage.control.leader), now_s()
        stage.control.freeze(frozen)
        await stage.writer.acks(10)
        gaps_s.append(round(stage.writer.longest_gap_s(since_s), 2))
        stage.control.thaw(frozen)
        await stage.settled(frozen)
        await stage.writer.acks(10)
        assert await asyncio.to_thread(stage.control.leader) != frozen
    counts = await stage.check()
    assert stage.control.log().count("leads no more") >= len(gaps_s)
    async with ControlClient(",".join(stage.control.addresses)) as client:
        epochs = [plan.epoch for plan in await client.plans()]
    assert len(epochs) == len(set(epochs))
    report("control leader frozen past its lease", write_gaps_s=gaps_s, **counts)
    assert counts["lost"] == 0
