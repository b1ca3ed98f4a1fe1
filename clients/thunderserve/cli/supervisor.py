"""Child processes that end when their supervisor does, however it ends."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Self

from thunderserve.cli.sessions import FLEET_VARIABLE, kill_session, session_members
from thunderserve.core.errors import ThunderServeError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from types import TracebackType

__all__ = ["GRACE_S", "Child", "Command", "Supervisor", "last_lines"]

GRACE_S = 15.0
_POLL_S = 0.02


@dataclass(frozen=True, slots=True)
class Command:
    """One process to run; `environment` is added to the supervisor's own."""

    name: str
    argv: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Child:
    """A process that was started; it leads a session of its own."""

    command: Command
    process: asyncio.subprocess.Process
    log: Path

    @property
    def name(self) -> str:
        """The command's name."""
        return self.command.name

    @property
    def pid(self) -> int:
        """Its process id, which is its session's too."""
        return self.process.pid

    @property
    def running(self) -> bool:
        """False once it has ended."""
        return self.process.returncode is None

    @property
    def ending(self) -> str:
        """How it ended, for people."""
        code = self.process.returncode
        if code is None:
            return "is running"
        return f"was killed by signal {-code}" if code < 0 else f"ended with status {code}"


class Supervisor:
    """Starts processes, keeps their logs, stops them; use it as an asynchronous context.

    ::

        async with Supervisor(logs) as supervisor:
            child = await supervisor.start(Command("etcd", ("etcd",)))
            ...

    Leaving the block ends every child and everything that the children started. If the supervisor
    itself is killed, its watchdog does the same.

    Args:
        logs: A folder; each child's output goes to `NAME.log` in it.
    """

    def __init__(self, logs: Path) -> None:
        self._logs = logs
        self._fleet = uuid.uuid4().hex
        self._children: dict[str, Child] = {}
        self._watchdog: subprocess.Popen[bytes] | None = None

    @property
    def children(self) -> tuple[Child, ...]:
        """Everything that was started, in order."""
        return tuple(self._children.values())

    def child(self, name: str) -> Child:
        """The child of that name; KeyError for a name that was never started."""
        return self._children[name]

    async def start(self, command: Command) -> Child:
        """Start one process.

        Raises:
            ThunderServeError: The program cannot be run.
        """
        log = self._logs / f"{command.name}.log"
        environment = {**os.environ, **command.environment, FLEET_VARIABLE: self._fleet}
        with log.open("ab") as output:
            try:
                process = await asyncio.create_subprocess_exec(
                    *command.argv,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    cwd=self._logs,
                    env=environment,
                    start_new_session=True,
                )
            except OSError as error:
                raise ThunderServeError(f"cannot run {command.argv[0]}: {error}") from error
        self._tell_watchdog(f"+{process.pid}")
        child = Child(command, process, log)
        self._children[command.name] = child
        return child

    async def stop(self, names: Iterable[str], grace_s: float = GRACE_S) -> None:
        """Ask children to end with SIGTERM; kill what has not ended after `grace_s`."""
        await asyncio.gather(*(self._stop(self._children[name], grace_s) for name in names))

    async def wait_any_ended(self, known: Iterable[str] = ()) -> Child:
        """Wait until a child ends whose name is not in `known`, and return it."""
        ignored = set(known)
        while True:
            for child in self.children:
                if child.name not in ignored and not child.running:
                    return child
            waits = [
                asyncio.ensure_future(child.process.wait())
                for child in self.children
                if child.name not in ignored
            ]
            # A child may also be started while this waits, so look again now and then.
            await asyncio.wait(waits, timeout=1.0, return_when=asyncio.FIRST_COMPLETED)
            for wait in waits:
                wait.cancel()

    async def __aenter__(self) -> Self:
        # It must outlive the event loop, and runs nothing but this package's own module.
        self._watchdog = subprocess.Popen(  # noqa: ASYNC220, S603 - see above
            [sys.executable, "-m", "thunderserve.cli.watchdog", self._fleet],
            stdin=subprocess.PIPE,
            start_new_session=True,
        )
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.stop(reversed(self._children))
        if self._watchdog is not None:
            await asyncio.to_thread(self._watchdog.communicate)

    async def _stop(self, child: Child, grace_s: float) -> None:
        if child.running:
            with contextlib.suppress(ProcessLookupError):
                child.process.terminate()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(child.process.wait(), grace_s)
        deadline = time.monotonic() + GRACE_S
        while session_members(child.pid) and time.monotonic() < deadline:
            kill_session(child.pid)
            await asyncio.sleep(_POLL_S)
        if child.running:
            await child.process.wait()
        self._tell_watchdog(f"-{child.pid}")

    def _tell_watchdog(self, line: str) -> None:
        if self._watchdog is None or self._watchdog.stdin is None:
            raise AssertionError("a supervisor is used as a context")
        with contextlib.suppress(BrokenPipeError):
            self._watchdog.stdin.write(f"{line}\n".encode())
            self._watchdog.stdin.flush()


def last_lines(log: Path, count: int = 15) -> Sequence[str]:
    """The end of a log."""
    try:
        return log.read_text(encoding="utf-8", errors="replace").splitlines()[-count:]
    except OSError:
        return ()
