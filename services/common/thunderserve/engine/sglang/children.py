"""The processes that SGLang starts: whose they are, when they end, ending them."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from multiprocessing.process import BaseProcess

__all__ = ["ChildWatch", "end_processes", "own_children"]


class ChildWatch:
    """Calls `on_end(pid)` from the running loop when a watched process ends.

    Args:
        pids: Processes that live now.
        on_end: Called once for every one that ends.
    """

    def __init__(self, pids: Iterable[int], on_end: Callable[[int], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._on_end = on_end
        self._watched: dict[int, int] = {}
        for pid in pids:
            descriptor = os.pidfd_open(pid)
            self._watched[descriptor] = pid
            self._loop.add_reader(descriptor, self._ended, descriptor)

    def _ended(self, descriptor: int) -> None:
        pid = self._forget(descriptor)
        self._on_end(pid)

    def _forget(self, descriptor: int) -> int:
        self._loop.remove_reader(descriptor)
        os.close(descriptor)
        return self._watched.pop(descriptor)

    def close(self) -> None:
        """Watch no longer; safe to call twice."""
        for descriptor in tuple(self._watched):
            self._forget(descriptor)


def own_children() -> set[BaseProcess]:
    """The processes that this one started through multiprocessing and that live."""
    return set(multiprocessing.active_children())


def end_processes(processes: Iterable[BaseProcess], grace_s: float) -> None:
    """Wait `grace_s` for processes that were asked to end, then kill the rest; blocks."""
    deadline = time.monotonic() + grace_s
    for process in processes:
        process.join(max(0.0, deadline - time.monotonic()))
        if process.is_alive():
            process.kill()
            process.join()
