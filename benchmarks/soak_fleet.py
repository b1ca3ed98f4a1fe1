"""An emulated fleet under constant load while faults come at random: are all promises kept?

What comes is drawn from a seed: a group, control or the router is killed and started again, an
engine freezes or crawls, a link is cut or slow, a group is drained and put back, or changes its
phase and back. One fault at a time, and a rest after each. At the end the load stops, and
everything that was taken must have been given back.

    .venv/bin/python benchmarks/soak_fleet.py [--minutes 60] [--rate 2] [--seed 0] [--speed 1]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import math
import os
import random
import resource
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import uvloop

from thunderserve.cli.emulated.options import EmulatedOptions, KvlinkKind
from thunderserve.cli.emulated.planned import problem_and_plan
from thunderserve.cli.emulated.scene import Scene, staged
from thunderserve.cli.load.arrivals import arrivals_of
from thunderserve.cli.load.expected import expected_tokens
from thunderserve.cli.load.invariants import violations
from thunderserve.client import ControlClient
from thunderserve.core.errors import ThunderServeError
from thunderserve.core.plan import Phase

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

HOLD_S, REST_S = (0.5, 4.0), (5.0, 20.0)
WARM_UP_S, SETTLE_S, LEASE_TTL_S = 15.0, 5.0, 15.0
OTHER = {Phase.PREFILL: Phase.DECODE, Phase.DECODE: Phase.PREFILL}


def main() -> int:
    """Print one JSON object; the exit status is 1 when a promise was broken."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--rate", type=float, default=2.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--speed", type=float, default=1.0)
    parser.add_argument("--kvlink", choices=list(KvlinkKind), default=KvlinkKind.MODELLED)
    parser.add_argument("--log", type=Path)
    given = parser.parse_args()
    if given.log:
        logging.basicConfig(
            filename=given.log, level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s"
        )
    summary = uvloop.run(soak(given))
    print(json.dumps(summary, indent=2))
    return bool(summary["broken"] or summary["left_behind"])


async def soak(given: argparse.Namespace) -> dict[str, object]:
    """Load and faults for so many minutes."""
    # One process stands for ten hosts: on a busy machine it pauses longer than any of them would.
    options = EmulatedOptions(
        speed=given.speed, kvlink=KvlinkKind(given.kvlink), lease_ttl_s=LEASE_TTL_S
    )
    problem, plan = await asyncio.to_thread(problem_and_plan, options)
    emulated_s = given.minutes * 60 * given.speed
    workload = problem.workload.with_rate(given.rate)
    async with staged(options, problem, plan) as scene, scene.watched():
        await scene.load(arrivals_of(workload, WARM_UP_S, given.seed + 1))
        await asyncio.sleep(SETTLE_S)
        before = held(scene)
        breaking = asyncio.create_task(Breaker(scene, random.Random(given.seed)).run())  # noqa: S311
        await scene.load(arrivals_of(workload, emulated_s, given.seed), seed=given.seed)
        breaking.cancel()
        await asyncio.gather(breaking, return_exceptions=True)
        await mended(scene)
        await asyncio.sleep(SETTLE_S)
        after = held(scene)
    return {"seed": given.seed, "minutes": given.minutes} | told(scene, before, after)


class Breaker:
    """Breaks and mends, as the dice fall.

    Args:
        scene: On stage.
        dice: Every choice is theirs.
    """

    def __init__(self, scene: Scene, dice: random.Random) -> None:
        self._scene = scene
        self._dice = dice
        self._groups = [group.id for group in scene.fleet.plan.groups]

    async def run(self) -> None:
        """One fault after another, until cancelled."""
        faults = (
            self._kill,
            self._kill,
            self._freeze,
            self._crawl,
            self._cut_link,
            self._drain,
            self._flip,
        )
        while True:
            await asyncio.sleep(self._dice.uniform(*REST_S))
            # What was begun is ended: a fault that nobody mends is another test.
            await asyncio.shield(self._dice.choice(faults)())

    async def _hold(self) -> None:
        await asyncio.sleep(self._dice.uniform(*HOLD_S))

    async def _kill(self) -> None:
        name = self._dice.choice([*self._groups, "control"])
        await self._scene.faults.kill(name)
        await self._hold()
        self._scene.faults.restart(name)

    async def _freeze(self) -> None:
        group = self._dice.choice(self._groups)
        self._scene.faults.freeze(group)
        await self._hold()
        self._scene.faults.thaw(group)

    async def _crawl(self) -> None:
        group = self._dice.choice(self._groups)
        self._scene.faults.slow_down(group, self._dice.uniform(2, 10))
        await self._hold()
        self._scene.faults.thaw(group)

    async def _cut_link(self) -> None:
        nodes = sorted({g.gpus[0].node for g in self._scene.fleet.plan.groups})
        source, target = self._dice.sample(nodes, 2)
        self._scene.faults.degrade_link(source, target, self._dice.choice((10.0, math.inf)))
        await self._hold()
        self._scene.faults.degrade_link(source, target, 1.0)

    async def _drain(self) -> None:
        group = self._dice.choice(self._groups)
        await self._asked(f"drain {group}", lambda control: control.drain(group))
        await self._hold()
        await self._asked(f"undrain {group}", lambda control: control.undrain(group))

    async def _flip(self) -> None:
        async with ControlClient(self._scene.fleet.layout.control.address) as control:
            plan = await control.plan()
        able = [g for g in plan.groups if g.phase in OTHER and g.pp == 1]
        group = self._dice.choice(able)
        for phase in (OTHER[group.phase], group.phase):
            await self._asked(
                f"flip {group.id} to {phase}",
                lambda control, phase=phase: control.flip(group.id, phase),
            )
            await self._hold()

    async def _asked(self, what: str, ask: Callable[[ControlClient], Awaitable[object]]) -> None:
        """Ask control; what it refuses is noted, and no fault."""
        self._scene.history.note_fault(what)
        try:
            async with ControlClient(self._scene.fleet.layout.control.address) as control:
                await ask(control)
        except ThunderServeError as error:
            self._scene.history.note_fault(f"refused: {what}: {error}")


async def mended(scene: Scene) -> None:
    """Start what is down, and wait until every group is in the plan's routes' reach again."""
    for name, member in scene.fleet.members.items():
        if not member.running:
            scene.history.note_fault(f"restart {name}")
            member.start()


def held(scene: Scene) -> dict[str, float]:
    """What a process holds: tokens of KV memory, tasks, descriptors, resident memory."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return {
        "kv_tokens": sum(engine.used_tokens for engine in scene.fleet.engines.values()),
        "tasks": len(asyncio.all_tasks()),
        "descriptors": len(list(Path("/proc/self/fd").iterdir())),
        "resident_mb": pages * os.sysconf("SC_PAGE_SIZE") / 1e6,
    }


def told(scene: Scene, before: dict[str, float], after: dict[str, float]) -> dict[str, object]:
    """What came of it."""
    history = scene.history
    broken = violations(history, expected_tokens)
    kinds = Counter(what.partition(" ")[0].rstrip(":") for _, what in history.faults)
    errors = Counter(r.error.partition(":")[0] for r in history.requests if r.error)
    used = resource.getrusage(resource.RUSAGE_SELF)
    return {
        "requests": len(history.requests),
        "endings": dict(Counter(record.ending.value for record in history.requests)),
        "errors": dict(errors),
        "examples": sorted({r.error for r in history.requests if r.error})[:5],
        "retried": sum(bool(r.report and r.report.retries) for r in history.requests),
        "faults": dict(kinds),
        "epochs": max(plan.epoch for plan in history.plans),
        "broken": [each.reason for each in broken][:20],
        "before": before,
        "after": after,
        "left_behind": after["kv_tokens"] > 0,
        "cpu_s": used.ru_utime + used.ru_stime,
    }


if __name__ == "__main__":
    sys.exit(main())
