"""`thunderserve up --emulated`: an emulated fleet that runs until somebody stops it."""

from __future__ import annotations

import asyncio
import logging
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from thunderserve.cli.emulated.fleet import EmulatedFleet
from thunderserve.cli.emulated.planned import problem_and_plan
from thunderserve.cli.up import announce, stop_on_signals, unless_stopped
from thunderserve.console.output import say
from thunderserve.core.errors import UnavailableError
from thunderserve.core.plan import Phase

if TYPE_CHECKING:
    from thunderserve.cli.emulated.options import EmulatedOptions
    from thunderserve.console.output import OutputFormat

__all__ = ["up_emulated"]

_WELCOME = """
{gpus} GPUs in {groups} groups ({phases}) are emulated, {speed:g} times as fast as they would be.
OpenAI API http://{http}/v1 · SDK (gRPC) {router} · control {control}

thunderserve load --against {router} --workload {workload} --rate {rate:.3g} --speed {speed:g}

export THUNDERSERVE_CONTROL={control}
thunderctl get routes
"""


async def up_emulated(options: EmulatedOptions, run: Path | None, output: OutputFormat) -> None:
    """Run an emulated fleet until SIGINT or SIGTERM.

    Raises:
        UnavailableError: A service has ended.
    """
    stopping = stop_on_signals()
    problem, plan = await asyncio.to_thread(problem_and_plan, options)
    # Unix sockets' paths are short, so they are in a folder of their own.
    with tempfile.TemporaryDirectory(prefix="thunderserve-") as sockets:
        _log_to(Path(run or sockets))
        async with EmulatedFleet(options, problem, plan, Path(sockets)) as fleet:
            say(f"starting {len(plan.groups)} groups")
            began_s = time.monotonic()
            if not await unless_stopped(stopping, fleet.start()):
                return
            say(f"ready after {time.monotonic() - began_s:.1f} s")
            announce(_describe(fleet), _welcome(fleet), output)
            await unless_stopped(stopping, _watch(fleet))
            say("stopping")


async def _watch(fleet: EmulatedFleet) -> None:
    raise UnavailableError(await fleet.wait_lost())


def _log_to(folder: Path) -> None:
    """All services write one log."""
    folder.mkdir(parents=True, exist_ok=True)
    handler = logging.FileHandler(folder / "fleet.log")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)


def _describe(fleet: EmulatedFleet) -> dict[str, Any]:
    layout = fleet.layout
    return {
        "model": fleet.plan.model,
        "speed": fleet.options.speed,
        "http": f"http://{layout.router.http_address}",
        "router": layout.router.address,
        "control": layout.control.address,
        "workers": {name: worker.address for name, worker in layout.workers.items()},
    }


def _welcome(fleet: EmulatedFleet) -> str:
    plan, layout = fleet.plan, fleet.layout
    counts = {phase: sum(group.phase is phase for group in plan.groups) for phase in Phase}
    return _WELCOME.format(
        gpus=sum(len(group.gpus) for group in plan.groups),
        groups=len(plan.groups),
        phases=", ".join(f"{count} {phase.lower()}" for phase, count in counts.items() if count),
        speed=fleet.options.speed,
        http=layout.router.http_address,
        router=layout.router.address,
        control=layout.control.address,
        workload=fleet.options.workload,
        rate=fleet.problem.workload.rate_rps,
    )
