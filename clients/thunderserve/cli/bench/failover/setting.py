"""Where the failures happen: one planned fleet and its load, for all parts of a run."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

from thunderserve.cli.emulated.options import EmulatedOptions
from thunderserve.cli.emulated.scene import Scene, staged
from thunderserve.cli.load.arrivals import arrivals_of
from thunderserve.cli.load.expected import expected_tokens
from thunderserve.cli.load.history import Ending
from thunderserve.cli.load.invariants import violations
from thunderserve.control.planner.problem import Problem
from thunderserve.core.errors import DeadlineError
from thunderserve.core.plan import Plan

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from contextlib import AbstractAsyncContextManager

    from thunderserve.cli.load.history import History, RequestRecord
    from thunderserve.core.trace import Trace

__all__ = ["Setting", "failed_requests", "promises_broken", "until", "wrong_tokens"]

_POLL_S = 0.02
_PATIENCE_S = 60.0


@dataclass(frozen=True, slots=True)
class Setting:
    """A fleet and its load.

    Attributes:
        load_s: Emulated seconds of arrivals around a failure.
        before_s: Of them before it.
        seed: Of arrivals and prompts.
    """

    options: EmulatedOptions
    problem: Problem
    plan: Plan
    load_s: float = 45.0
    before_s: float = 15.0
    seed: int = 0

    def arrivals(self) -> Trace:
        """Of the workload that is planned for."""
        return arrivals_of(self.problem.workload, self.load_s, self.seed)

    def staged(self) -> AbstractAsyncContextManager[Scene]:
        """The fleet, for the length of a block."""
        return staged(self.options, self.problem, self.plan)

    async def reached(self, history: History) -> None:
        """Wait until the load has gone on for `before_s`."""
        await until(_said(lambda: history.now_s() >= self.before_s))


async def until(holds: Callable[[], Awaitable[bool]], what: str = "the load") -> float:
    """Ask again and again; returns the loop's time when it holds, DeadlineError after a minute."""
    loop = asyncio.get_running_loop()
    deadline_s = loop.time() + _PATIENCE_S
    while not await holds():
        if loop.time() > deadline_s:
            raise DeadlineError(f"{what} was awaited for {_PATIENCE_S:.0f} s in vain")
        await asyncio.sleep(_POLL_S)
    return loop.time()


def failed_requests(history: History) -> int:
    """Requests that were not answered to their end, whatever the reason."""
    return sum(record.ending is not Ending.FINISHED for record in history.requests)


def wrong_tokens(history: History) -> int:
    """Tokens that came after a stream had left the reference: one twice, missing or wrong."""
    return sum(_wrong(record) for record in history.requests)


def promises_broken(history: History) -> int:
    """See `thunderserve.cli.load.invariants`."""
    return len(violations(history, expected_tokens))


def _wrong(record: RequestRecord) -> int:
    # Every token follows from all before it, so a stream that has left the reference stays away.
    right = expected_tokens(record.prompt, min(len(record.tokens), record.output_tokens))
    same = 0
    for token, reference in zip(record.tokens, right, strict=False):
        if token != reference:
            break
        same += 1
    return len(record.tokens) - same


def _said(holds: Callable[[], bool]) -> Callable[[], Awaitable[bool]]:
    async def ask() -> bool:
        return holds()

    return ask
