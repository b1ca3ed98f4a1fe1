"""The options that every command shares, and one conversation with the control plane."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from thunderserve.client.control import ControlClient
from thunderserve.console.output import OutputFormat, write

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence
    from typing import Any

    from rich.console import RenderableType

__all__ = ["DEFAULT_CONTROL", "DEFAULT_TIMEOUT_S", "Session", "hoist_globals"]

DEFAULT_CONTROL = "127.0.0.1:7700"
DEFAULT_TIMEOUT_S = 30.0
_GLOBALS = ("--control", "--output", "-o", "--timeout", "--as")

_Answer = TypeVar("_Answer")


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
            async with ControlClient(
                self.control, timeout_s=timeout_s, caller=self.caller
            ) as control:
                return await question(control)

        return asyncio.run(conversation())

    def show(self, value: Any, table: RenderableType) -> None:
        """Write the answer to stdout in the wanted form."""
        write(value, table, self.output)


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
