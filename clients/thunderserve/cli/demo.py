"""`thunderserve demo`: a fleet of real engines on this machine, what it does, and that it is right.

It starts a fleet, streams prompts, compares answers with one colocated engine's, changes a group's
phase under load, and stops everything. It fails if a check does.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from thunderserve.cli.demo_checks import check_exactness, check_flip
from thunderserve.cli.demo_prompts import CHAT, COMPLETIONS, LONG
from thunderserve.cli.demo_story import Story
from thunderserve.cli.demo_traffic import ask_http, ask_sdk
from thunderserve.cli.fleet import LocalFleet
from thunderserve.cli.progress import StartProgress
from thunderserve.cli.sessions import session_members
from thunderserve.cli.up import stop_on_signals, unless_stopped
from thunderserve.client import AsyncClient, ControlClient
from thunderserve.console.views import groups_table, routes_table
from thunderserve.core.request import WireMode

if TYPE_CHECKING:
    from pathlib import Path

    from thunderserve.cli.demo_traffic import Figures
    from thunderserve.cli.options import FleetOptions

__all__ = ["demo"]

SHOWN_TOKENS = 40
INTERRUPTED = 130


async def demo(options: FleetOptions, run: Path | None) -> int:
    """Run the demo; returns its exit status: 0 when every check holds."""
    started, story = time.monotonic(), Story()
    stopping = stop_on_signals()
    fleet = LocalFleet(options, run)
    async with fleet:
        if not await unless_stopped(stopping, _tell(story, fleet)):
            return INTERRUPTED
        if story.failed_checks:
            fleet.keep_run()
            story.say(f"\nthe logs stay in {fleet.run}")
        story.title("Stopping")
    left = [child.name for child in fleet.children() if session_members(child.pid)]
    story.check(
        holds=not left, claim="every process has ended", otherwise=f"running: {' '.join(left)}"
    )
    story.say(f"{time.monotonic() - started:.0f} s in all")
    return 1 if story.failed_checks else 0


async def _tell(story: Story, fleet: LocalFleet) -> None:
    layout, model = fleet.layout, fleet.options.model
    story.title(f"Starting a fleet of {fleet.options.engine} engines; logs are in {fleet.run}")
    with StartProgress() as progress:
        await fleet.start(progress)
    async with (
        ControlClient(layout.control, timeout_s=120) as control,
        AsyncClient(layout.router) as client,
    ):
        story.title("The plan")
        story.console.print(groups_table(await control.groups()))
        story.console.print(routes_table(await control.plan()))
        story.title("Prompts, streamed through the OpenAI API and the SDK")
        story.figures(await _stream_prompts(story, fleet, client))
        story.title("The same tokens as one engine that does both phases")
        await check_exactness(story, client, layout.reference, model)
        story.title("A decode group becomes a prefill group while requests run")
        await check_flip(
            story,
            client,
            control,
            group=fleet.options.groups[-1],
            reference=layout.reference,
            model=model,
        )


async def _stream_prompts(story: Story, fleet: LocalFleet, client: AsyncClient) -> list[Figures]:
    """Ask each prompt with the exact wire mode, then with the small one."""
    rows = []
    for wire in (WireMode.RAW16, WireMode.INT4):
        for path, body in _http_requests(fleet.options.model_name, wire):
            story.say(f"\nPOST {path} · {wire}")
            rows.append(await ask_http(fleet.layout.http, path, body, story.stream))
        for prompt in COMPLETIONS[1:]:
            story.say(f"\nSDK · {wire}")
            story.stream(prompt)
            rows.append(await ask_sdk(client, prompt, wire, SHOWN_TOKENS, story.stream))
        story.say(f"\nSDK · {wire} · after {len(LONG)} characters of textwrap.py")
        rows.append(await ask_sdk(client, LONG, wire, SHOWN_TOKENS, story.stream))
    story.say("\n")
    return rows


def _http_requests(model: str, wire: WireMode) -> tuple[tuple[str, dict[str, object]], ...]:
    shared = {
        "model": model,
        "max_tokens": SHOWN_TOKENS,
        "temperature": 0,
        "kv_wire_mode": str(wire),
    }
    return (
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": CHAT}], **shared}),
        ("/v1/completions", {"prompt": COMPLETIONS[0], **shared}),
    )
