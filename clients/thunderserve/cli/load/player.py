"""Plays a trace against a router: open loop, so a slow fleet does not slow the arrivals."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

import numpy as np

from thunderserve.client import AsyncClient, ControlClient
from thunderserve.core.errors import ThunderServeError

if TYPE_CHECKING:
    from thunderserve.cli.load.ask import Asker
    from thunderserve.cli.load.history import History
    from thunderserve.core.trace import Trace, TracedRequest

__all__ = ["play", "prompt_of", "watch_plans"]

# A tokenizer's first ids are special tokens.
_FIRST_TOKEN = 16
_WATCH_INTERVAL_S = 0.05


def prompt_of(request: TracedRequest, number: int, seed: int, vocabulary: int) -> tuple[int, ...]:
    """A prompt of the request's length; no two numbers have the same."""
    draws = np.random.default_rng((seed, number))
    return tuple(draws.integers(_FIRST_TOKEN, vocabulary, request.prompt_tokens).tolist())


async def play(
    trace: Trace,
    asker: Asker,
    history: History,
    *,
    speed: float = 1.0,
    seed: int = 0,
    vocabulary: int,
) -> None:
    """Send every request when it is due, and return when the last one has ended.

    Args:
        trace: Arrivals count from its first one.
        asker: Sends them.
        history: Notes what comes; its clock runs `speed` times as fast as the loop's.
        speed: Trace seconds per real second.
        seed: Of the prompts' tokens.
        vocabulary: Token ids are below this.
    """
    first_s, began_s = trace.requests[0].arrival_s, history.now_s()
    async with asyncio.TaskGroup() as group:
        for number, request in enumerate(trace.requests):
            prompt = prompt_of(request, number, seed, vocabulary)
            due_s = began_s + request.arrival_s - first_s
            await asyncio.sleep(max(0.0, due_s - history.now_s()) / speed)
            record = history.submit(prompt, request.output_tokens)
            group.create_task(asker.ask(record, history))


async def watch_plans(history: History, control: str, router: str) -> None:
    """Note which epochs control and router follow, until cancelled; silence is no fault."""
    async with (
        ControlClient(control, timeout_s=1.0) as plans,
        AsyncClient(router, timeout_s=1.0) as status,
    ):
        while True:
            with contextlib.suppress(ThunderServeError):
                plan = await plans.plan()
                weights = [route.weight for route in plan.routes]
                history.note_plan("control", plan.epoch, weights)
            with contextlib.suppress(ThunderServeError):
                history.note_plan("router", (await status.status()).plan_epoch)
            await asyncio.sleep(_WATCH_INTERVAL_S)
