"""etcd is away for a minute, and a control leader sleeps past its lease, while requests come."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from thunderserve.cli.bench.failover.replicas import Replicas
from thunderserve.cli.bench.failover.setting import failed_requests, until
from thunderserve.cli.emulated.fleet import EmulatedFleet
from thunderserve.cli.emulated.scene import Scene
from thunderserve.client import ControlClient
from thunderserve.core.errors import ThunderServeError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from thunderserve.cli.bench.failover.setting import Setting

__all__ = ["ETCD_KEYS", "SPLIT_BRAIN_KEYS", "etcd_figures", "split_brain_figures"]

ETCD_KEYS = (
    "etcd_outage_failed_requests",
    "etcd_outage_requests",
    "etcd_outage_s",
    "etcd_outage_resume_s",
)
SPLIT_BRAIN_KEYS = (
    "split_brain_epochs_won",
    "split_brain_stale_writes_refused",
    "split_brain_failed_requests",
)
_WRITES_AFTER = 5


async def etcd_figures(setting: Setting, down_s: float = 60.0) -> dict[str, float]:
    """`ETCD_KEYS`: all three members are killed, and started again `down_s` later.

    Resumed is from the moment when etcd is well again until a change is acknowledged.
    """
    async with _staged(setting) as (scene, replicas):
        loading = asyncio.create_task(_load(scene, setting, setting.load_s + down_s))
        await setting.reached(scene.history)
        await replicas.kill_etcd()
        await asyncio.sleep(down_s)
        await replicas.start_etcd()
        well_s = asyncio.get_running_loop().time()
        writer = Writer(replicas.addresses, _idle_group(setting))
        resumed_s = await until(writer.try_write, "a change after the outage")
        await loading
    return {
        "etcd_outage_failed_requests": failed_requests(scene.history),
        "etcd_outage_requests": len(scene.history.requests),
        "etcd_outage_s": down_s,
        "etcd_outage_resume_s": resumed_s - well_s,
    }


async def split_brain_figures(setting: Setting) -> dict[str, float]:
    """`SPLIT_BRAIN_KEYS`: the leader is stopped amid writes, past its lease, and goes on then.

    Epochs won is how many replicas published a plan under the same epoch, at most: 1 where the
    stale leader won none of its successor's. What was asked of it meanwhile is refused, or passed
    on to the successor.
    """
    async with _staged(setting) as (scene, replicas):
        loading = asyncio.create_task(_load(scene, setting, setting.load_s))
        await setting.reached(scene.history)
        stale, group = replicas.leader(), _idle_group(setting)
        others = tuple(address for address in replicas.addresses if address != stale)
        amid, after = Writer((stale,), group), Writer(others, group)
        async with amid.busy():
            await until(amid.acknowledged(1), "a change by the leader")
            replicas.freeze(stale)
            for _ in range(_WRITES_AFTER):
                await until(after.try_write, "a change by the leader's successor")
            replicas.thaw(stale)
            seen = amid.acked + amid.refused
            await until(lambda: _done(amid.acked + amid.refused > seen), "the stale leader's word")
        await loading
        publishers = replicas.publishers()
    return {
        "split_brain_epochs_won": max(publishers.values()),
        "split_brain_stale_writes_refused": amid.refused,
        "split_brain_failed_requests": failed_requests(scene.history),
    }


@dataclass(slots=True)
class Writer:
    """Drains a group and puts it back.

    Attributes:
        acked: Changes that were acknowledged.
        refused: Tries that were answered otherwise, or not.
    """

    addresses: tuple[str, ...]
    group: str
    acked: int = 0
    refused: int = 0
    refusals: set[str] = field(default_factory=set)

    async def try_write(self) -> bool:
        """One change."""
        async with ControlClient(",".join(self.addresses), timeout_s=5.0) as client:
            change = client.undrain if self.acked % 2 else client.drain
            try:
                await change(self.group)
            except ThunderServeError as error:
                self.refused += 1
                self.refusals.add(str(error))
                return False
        self.acked += 1
        return True

    def acknowledged(self, count: int) -> Callable[[], Awaitable[bool]]:
        """Have so many been?"""
        return lambda: _done(self.acked >= count)

    @asynccontextmanager
    async def busy(self) -> AsyncIterator[None]:
        """Write without a pause, during the block."""
        writing = asyncio.create_task(self._write())
        try:
            yield
        finally:
            writing.cancel()
            await asyncio.gather(writing, return_exceptions=True)

    async def _write(self) -> None:
        while True:
            await self.try_write()


@asynccontextmanager
async def _staged(setting: Setting) -> AsyncIterator[tuple[Scene, Replicas]]:
    """The fleet under three control replicas that are processes, on three members of etcd."""
    with (
        TemporaryDirectory(prefix="thunderserve-") as data,
        TemporaryDirectory(prefix="thunderserve-") as run,
    ):
        async with Replicas(Path(data)) as replicas:
            await replicas.start_etcd()
            options = replace(setting.options, control_addresses=replicas.addresses)
            async with EmulatedFleet(options, setting.problem, setting.plan, Path(run)) as fleet:
                await replicas.start_control(fleet.layout.control)
                await fleet.start()
                yield Scene(fleet), replicas


async def _load(scene: Scene, setting: Setting, load_s: float) -> None:
    trace = replace(setting, load_s=load_s).arrivals()
    async with scene.watched():
        await scene.load(trace, seed=setting.seed)


def _idle_group(setting: Setting) -> str:
    """The group that the fleet misses least."""
    weights = {group.id: 0.0 for group in setting.plan.groups}
    for route in setting.plan.routes:
        weights[route.prefill] += route.weight
        weights[route.decode] += route.weight
    return min(weights, key=lambda group: weights[group])


async def _done(holds: bool) -> bool:  # noqa: FBT001 - an answer
    return holds
