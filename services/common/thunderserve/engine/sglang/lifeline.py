"""A thread to start processes from."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Lifeline"]

_Result = TypeVar("_Result")


class Lifeline:
    """Runs blocking work in a thread that then stays until `cut`.

    The kernel ends a child that asked for it (`PR_SET_PDEATHSIG`) with the thread that started it,
    not with the process. The thread never keeps the process from ending.
    """

    def __init__(self) -> None:
        self._cut = threading.Event()

    @property
    def is_cut(self) -> bool:
        """True when the work is wanted no more; long work looks now and then."""
        return self._cut.is_set()

    def cut(self) -> None:
        """Let the thread end, once its work has; safe to call twice."""
        self._cut.set()

    async def run(self, work: Callable[[], _Result]) -> _Result:
        """What `work` returns or raises; a cancelled wait leaves the work running."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[_Result] = loop.create_future()

        def settle(result: _Result | None, error: BaseException | None) -> None:
            if future.done():
                return
            if error is not None:
                future.set_exception(error)
            else:
                future.set_result(result)  # type: ignore[arg-type]  # None only beside an error

        def body() -> None:
            outcome: tuple[_Result | None, BaseException | None]
            try:
                outcome = (work(), None)
            except BaseException as error:  # noqa: BLE001 - it is raised where it is awaited
                outcome = (None, error)
            if not loop.is_closed():
                loop.call_soon_threadsafe(settle, *outcome)
            self._cut.wait()

        threading.Thread(target=body, name="sglang", daemon=True).start()
        return await future
