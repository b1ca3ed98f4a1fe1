"""`thunderserve up`: a fleet that runs until somebody stops it."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from typing import TYPE_CHECKING, Any

import yaml

from thunderserve.cli.fleet import LocalFleet
from thunderserve.cli.progress import StartProgress
from thunderserve.console.output import OutputFormat, say
from thunderserve.core.errors import UnavailableError

if TYPE_CHECKING:
    from pathlib import Path

    from thunderserve.cli.options import FleetOptions

__all__ = ["announce", "describe", "stop_on_signals", "unless_stopped", "up"]

_WELCOME = """
The fleet serves {model}. Stop it with Ctrl-C; its logs are in {run}.
OpenAI API http://{http}/v1 · SDK (gRPC) {router} · control {control}

curl http://{http}/v1/chat/completions -H 'content-type: application/json' -d '{{
  "model": "{model}", "stream": true, "max_tokens": 48, "temperature": 0,
  "messages": [{{"role": "user", "content": "Write a function that adds two numbers."}}]}}'

python -c 'from openai import OpenAI
client = OpenAI(base_url="http://{http}/v1", api_key="none")
print(client.completions.create(model="{model}", prompt="def add(a, b):", max_tokens=32))'

export THUNDERSERVE_CONTROL={control}
thunderctl get groups
thunderctl flip {last_group} --phase prefill
"""


async def up(options: FleetOptions, run: Path | None, output: OutputFormat) -> None:
    """Run a fleet until SIGINT or SIGTERM.

    Raises:
        UnavailableError: A process that the fleet needs has ended.
    """
    stopping = stop_on_signals()
    async with LocalFleet(options, run) as fleet:
        say(f"starting; logs are in {fleet.run}")
        if not await unless_stopped(stopping, _start(fleet)):
            return
        announce(describe(fleet), _welcome(fleet), output)
        await unless_stopped(stopping, _watch(fleet))
        say("stopping")


def stop_on_signals() -> asyncio.Event:
    """An event that Ctrl-C, SIGTERM and a closed terminal set; a second Ctrl-C is as usual."""
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()

    def stop(number: int) -> None:
        stopping.set()
        loop.remove_signal_handler(number)

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, stop, number)
    return stopping


def describe(fleet: LocalFleet) -> dict[str, Any]:
    """Where everything is, for programs."""
    layout = fleet.layout
    return {
        "model": fleet.options.model_name,
        "http": f"http://{layout.http}",
        "router": layout.router,
        "control": layout.control,
        "workers": dict(layout.workers),
        "reference": layout.reference,
        "run_dir": str(fleet.run),
        "processes": {child.name: child.pid for child in fleet.children()},
    }


def _welcome(fleet: LocalFleet) -> str:
    layout = fleet.layout
    return _WELCOME.format(
        model=fleet.options.model_name,
        run=fleet.run,
        http=layout.http,
        router=layout.router,
        control=layout.control,
        last_group=fleet.options.groups[-1],
    )


def announce(description: dict[str, Any], welcome: str, output: OutputFormat) -> None:
    """Say on stdout where a fleet is: to a person, or to a program."""
    if output is OutputFormat.TABLE:
        text = welcome
    elif output is OutputFormat.JSON:
        text = json.dumps(description) + "\n"  # one line, so that a program can wait for it
    else:
        text = yaml.safe_dump(description, sort_keys=False)
    sys.stdout.write(text)
    sys.stdout.flush()


async def _start(fleet: LocalFleet) -> None:
    with StartProgress() as progress:
        await fleet.start(progress)


async def _watch(fleet: LocalFleet) -> None:
    """Say which processes end; raise when the fleet cannot go on without one."""
    lost: set[str] = set()
    while True:
        member = await fleet.wait_lost(lost)
        lost.add(member.name)
        if member.essential:
            raise UnavailableError(fleet.obituary(member.name))
        say(fleet.obituary(member.name))
        say("the fleet goes on without it")


async def unless_stopped(stopping: asyncio.Event, work: Any) -> bool:
    """Do `work` to its end and return True, or give it up when `stopping` is set."""
    task = asyncio.ensure_future(work)
    stopped = asyncio.ensure_future(stopping.wait())
    await asyncio.wait([task, stopped], return_when=asyncio.FIRST_COMPLETED)
    stopped.cancel()
    if task.done():
        task.result()
        return True
    task.cancel()
    await asyncio.wait([task])
    return False
