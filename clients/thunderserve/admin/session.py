"""The options that every command shares, and one conversation with the control plane."""

from __future__ import annotations

import asyncio
import sys
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer
from rich.live import Live

from thunderserve.client.control import ControlClient
from thunderserve.console.output import OutputFormat, say, stdout_console, write
from thunderserve.core.errors import DeadlineError, UnavailableError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence
    from typing import Any

    from rich.console import RenderableType

__all__ = ["DEFAULT_CONTROL", "DEFAULT_TIMEOUT_S", "Session", "Watch", "hoist_globals"]

DEFAULT_CONTROL = "127.0.0.1:7700"
DEFAULT_TIMEOUT_S = 30.0
WATCH_INTERVAL_S = 1.0
_GLOBALS = ("--control", "--output", "-o", "--timeout", "--as")

_Answer = TypeVar("_Answer")

Watch = Annotated[
    bool, typer.Option("--watch", "-w", help="Show it again whenever it changes, until Ctrl-C.")
]


@dataclass(frozen=True, slots=True)
class Session:
    """What the options before the command say.

    Attributes:
        timeout_s: None leaves it to the command.
        caller: Who asks.
    """

    control: str
    output: OutputFormat
    timeout_s: float | None
    caller: str = ""

    @property
    def is_table(self) -> bool:
        """True when a person reads the answer."""
        return self.output is OutputFormat.TABLE

    def ask(
        self,
        question: Callable[[ControlClient], Awaitable[_Answer]],
        *,
        usual_timeout_s: float = DEFAULT_TIMEOUT_S,
    ) -> _Answer:
        """Connect, ask, disconnect.

        Raises:
            ThunderServeError: It failed; the class says how.
        """
        timeout_s = usual_timeout_s if self.timeout_s is None else self.timeout_s

        async def conversation() -> _Answer:
            async with self._client(timeout_s) as control:
                return await question(control)

        return asyncio.run(conversation())

    def _client(self, timeout_s: float) -> ControlClient:
        return ControlClient(self.control, timeout_s=timeout_s, caller=self.caller)

    def show(self, value: Any, table: RenderableType) -> None:
        """Write the answer to stdout in the wanted form."""
        write(value, table, self.output)

    def report(
        self,
        question: Callable[[ControlClient], Awaitable[_Answer]],
        view: Callable[[_Answer], RenderableType],
        *,
        data: Callable[[_Answer], Any] = lambda found: found,
        watch: bool = False,
    ) -> None:
        """Ask and show; with `watch` again whenever the answer has changed, until Ctrl-C.

        Args:
            question: What is asked.
            view: How a person sees the answer.
            data: What is written where JSON or YAML is wanted.
            watch: A table on a terminal is drawn anew in its place, all else follows below. A
                control plane that does not answer is said and asked again.
        """
        if not watch:
            found = self.ask(question)
            self.show(data(found), view(found))
            return
        in_place = self.is_table and sys.stdout.isatty()
        with Live(console=stdout_console(), screen=True) if in_place else nullcontext() as live:
            asyncio.run(self.watch(question, view, data, live))

    async def watch(
        self,
        question: Callable[[ControlClient], Awaitable[_Answer]],
        view: Callable[[_Answer], RenderableType],
        data: Callable[[_Answer], Any],
        live: Live | None = None,
        interval_s: float = WATCH_INTERVAL_S,
    ) -> None:
        """Ask and show, for ever; what `live` shows is replaced. See `report`."""
        timeout_s = DEFAULT_TIMEOUT_S if self.timeout_s is None else self.timeout_s
        shown: object = None
        async with self._client(timeout_s) as control:
            while True:
                try:
                    found = await question(control)
                except (UnavailableError, DeadlineError) as error:
                    say(f"thunderctl: {error}; asking again")
                else:
                    if live is not None:
                        live.update(view(found))
                    elif found != shown:
                        self.show(data(found), view(found))
                        sys.stdout.flush()
                    shown = found
                await asyncio.sleep(interval_s)


def hoist_globals(argv: Sequence[str]) -> list[str]:
    """The same arguments, those that every command shares first: they may stand anywhere."""
    hoisted: list[str] = []
    rest: list[str] = []
    arguments = iter(argv)
    for argument in arguments:
        if argument == "--":
            rest += [argument, *arguments]
        elif argument in _GLOBALS:
            hoisted += [argument, *([value] if (value := next(arguments, None)) else [])]
        elif argument.startswith(tuple(f"{name}=" for name in _GLOBALS)):
            hoisted.append(argument)
        else:
            rest.append(argument)
    return hoisted + rest
