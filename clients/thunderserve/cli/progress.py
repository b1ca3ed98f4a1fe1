"""How a fleet's start is shown on stderr: a live line on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import TracebackType

    from rich.status import Status

__all__ = ["StartProgress", "timed", "working"]


class StartProgress:
    """Tells a person what is ready and what is awaited; use it as a context."""

    def __init__(self) -> None:
        self._console = Console(file=sys.stderr, highlight=False)
        self._status: Status | None = None

    def waiting(self, names: tuple[str, ...]) -> None:
        """Show what is awaited; only where the line can be rewritten."""
        if self._status is not None:
            self._status.update(f"starting: {' '.join(names)}")

    def ready(self, name: str, seconds: float) -> None:
        """Add a line."""
        self._console.print(f"  {name:<12} ready after {seconds:5.1f} s")

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._status = self._console.status("starting")
            self._status.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._status is not None:
            self._status.stop()


@contextmanager
def working(what: str) -> Iterator[None]:
    """Show on a terminal that something takes its time."""
    console = Console(file=sys.stderr)
    if not console.is_terminal:
        yield
        return
    with console.status(what):
        yield


@contextmanager
def timed(what: str, budget_s: float | None) -> Iterator[Callable[[], float]]:
    """A monotonic clock; on a terminal a bar shows how much of the budget, if any, it has told."""
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TimeElapsedColumn(),
        console=Console(file=sys.stderr),
        transient=True,
    )
    if not bar.console.is_terminal:
        yield time.monotonic
        return
    began_s = time.monotonic()
    with bar:
        task = bar.add_task(what, total=budget_s)

        def clock() -> float:
            now_s = time.monotonic()
            bar.update(task, completed=now_s - began_s)
            return now_s

        yield clock
