"""Three replicas on three members of etcd, a fleet without engines, and somebody who writes."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest
from control_processes import ControlProcesses
from etcd_server import EtcdTrio
from fleet_fakes import FakeRouter, FakeWorker, followed

from thunderserve.client.control import ControlClient
from thunderserve.core.errors import ThunderServeError
from thunderserve.core.plan import Phase

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path


@dataclass
class Writer:
    """Drains g2 and puts it back, again and again, through any replica.

    Attributes:
        acked_s: When each change was acknowledged.
        refusals: What was said instead, each text once.
    """

    addresses: tuple[str, ...]
    acked_s: list[float] = field(default_factory=list)
    refusals: set[str] = field(default_factory=set)
    stopping: bool = False

    async def run(self) -> None:
        """Write until told to stop."""
        async with ControlClient(",".join(self.addresses), timeout_s=2.0) as client:
            changes = (client.drain, client.undrain)
            while not self.stopping:
                try:
                    await changes[len(self.acked_s) % 2]("g2")
                except ThunderServeError as error:
                    self.refusals.add(f"{type(error).__name__}: {error}")
                else:
                    self.acked_s.append(asyncio.get_running_loop().time())
                await asyncio.sleep(0.02)

    async def acks(self, count: int) -> None:
        """Wait for so many more."""
        wanted = len(self.acked_s) + count
        while len(self.acked_s) < wanted:  # noqa: ASYNC110 - its own tempo is what is measured
            await asyncio.sleep(0.01)

    def longest_gap_s(self, since_s: float) -> float:
        """The longest time without an acknowledgement, from the last one before a moment on."""
        before = [s for s in self.acked_s if s <= since_s][-1:]
        after = [*before, *(s for s in self.acked_s if s > since_s)]
        return max(b - a for a, b in pairwise(after))


@dataclass
class Stage:
    """Everything that a scenario plays with."""

    etcd: EtcdTrio
    control: ControlProcesses
    writer: Writer
    routers: tuple[FakeRouter, ...]

    async def settled(self, address: str) -> None:
        """Wait until a replica serves, and may write through whoever leads."""
        await answers(address)

    async def check(self) -> dict[str, int]:
        """Nothing that was acknowledged is lost, and nobody has seen an epoch fall.

        Returns:
            Acknowledged changes, and those of them that no published plan shows.
        """
        self.writer.stopping = True
        for router in self.routers:
            assert router.epochs == sorted(set(router.epochs))
        async with ControlClient(",".join(self.control.addresses)) as client:
            plans = await client.plans()
        shown = sum("g2 is drained" in p.reason or "g2 is put back" in p.reason for p in plans)
        acked = len(self.writer.acked_s)
        return {"acked": acked, "lost": max(0, acked - shown)}


@pytest.fixture
async def stage(tmp_path: Path) -> AsyncIterator[Stage]:
    etcd = EtcdTrio(tmp_path)
    etcd.start()
    control = ControlProcesses(tmp_path, etcd)
    control.start()
    try:
        async with _fleet(control, tmp_path) as routers:
            writer = Writer(control.addresses)
            writing = asyncio.create_task(writer.run())
            await writer.acks(5)
            for address in control.addresses:
                await answers(address)
            yield Stage(etcd, control, writer, routers)
            writer.stopping = True
            await writing
    finally:
        control.stop()
        etcd.stop()


async def answers(address: str) -> None:
    """Wait until a replica serves, and may write through whoever leads."""
    async with ControlClient(address, timeout_s=2.0) as client:
        while True:
            try:
                await client.undrain("g0")
                break
            except ThunderServeError:  # it is starting, or knows no leader yet
                await asyncio.sleep(0.1)


@asynccontextmanager
async def _fleet(control: ControlProcesses, folder: Path) -> AsyncIterator[tuple[FakeRouter, ...]]:
    """Each router begins at another replica, so that every replica has an observer."""
    names: Callable[[str], str] = lambda name: f"unix:{folder}/{name}"  # noqa: E731 - one use
    a, b, c = control.addresses
    phases = {"g0": Phase.PREFILL, "g1": Phase.DECODE, "g2": Phase.DECODE}
    async with AsyncExitStack() as stack:
        routers = [
            await stack.enter_async_context(FakeRouter(f"r{i}", order))
            for i, order in enumerate(((a, b, c), (b, c, a), (c, a, b)))
        ]
        for group, phase in phases.items():
            worker = FakeWorker(group, phase, names(group), control.addresses)
            await stack.enter_async_context(worker)
        await followed(routers[0], lambda plan: {g.id for g in plan.groups} == set(phases))
        yield tuple(routers)
