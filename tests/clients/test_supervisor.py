"""The supervisor with real processes: nothing outlives it, however it ends."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from thunderserve.cli.sessions import session_members
from thunderserve.cli.supervisor import Command, Supervisor, last_lines
from thunderserve.cli.watchdog import remaining_sessions
from thunderserve.core.errors import ThunderServeError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

# A process with a child that ignores SIGTERM, as an engine with its scheduler might be.
STUBBORN = "trap '' TERM; (trap '' TERM; sleep 600) & echo started; wait; sleep 600"
FAMILY = "sleep 600 & echo started; wait"
DEADLINE_S = 10.0


async def _until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while not condition():  # noqa: ASYNC110 - another process's doing has no event
            await asyncio.sleep(0.01)


async def test_supervisor_ends_children_and_theirs_when_left(tmp_path: Path) -> None:
    """A child's own children end with it."""
    async with Supervisor(tmp_path) as supervisor:
        child = await supervisor.start(Command("family", ("sh", "-c", FAMILY)))
        await _until(lambda: bool(last_lines(child.log)))
        assert len(session_members(child.pid)) == 2

    assert session_members(child.pid) == []
    assert not child.running


async def test_supervisor_kills_when_child_ignores_sigterm(tmp_path: Path) -> None:
    """The grace is bounded."""
    async with Supervisor(tmp_path) as supervisor:
        child = await supervisor.start(Command("stubborn", ("sh", "-c", STUBBORN)))
        await _until(lambda: bool(last_lines(child.log)))

        await supervisor.stop(["stubborn"], grace_s=0.1)

        assert session_members(child.pid) == []
        assert child.ending == "was killed by signal 9"


async def test_supervisor_tells_which_child_ended_and_keeps_its_log(tmp_path: Path) -> None:
    """The others go on."""
    async with Supervisor(tmp_path) as supervisor:
        lasting = await supervisor.start(Command("lasting", ("sleep", "600")))
        await supervisor.start(Command("brief", ("sh", "-c", "echo reason >&2; exit 3")))

        ended = await asyncio.wait_for(supervisor.wait_any_ended(), DEADLINE_S)

        assert (ended.name, ended.ending) == ("brief", "ended with status 3")
        assert last_lines(ended.log) == ["reason"]
        assert lasting.running


async def test_supervisor_names_program_that_cannot_be_run(tmp_path: Path) -> None:
    """A missing binary is an error that names it."""
    async with Supervisor(tmp_path) as supervisor:
        with pytest.raises(ThunderServeError, match="cannot run no-such-program"):
            await supervisor.start(Command("x", ("no-such-program",)))


def test_watchdog_ends_everything_when_supervisor_is_killed(tmp_path: Path) -> None:
    """SIGKILL leaves no process: not the children, not theirs, not the watchdog."""
    code = f"""if True:
        import asyncio, pathlib
        from thunderserve.cli.supervisor import Command, Supervisor
        async def main():
            async with Supervisor(pathlib.Path({str(tmp_path)!r})) as supervisor:
                child = await supervisor.start(Command("stubborn", ("sh", "-c", {STUBBORN!r})))
                print(child.pid, supervisor._watchdog.pid, flush=True)
                await asyncio.sleep(600)
        asyncio.run(main())
    """
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as program:
        assert program.stdout is not None
        child, watchdog = (int(word) for word in program.stdout.readline().split())
        _wait_for(lambda: len(session_members(child)) == 2)

        os.kill(program.pid, signal.SIGKILL)

        _wait_for(lambda: not session_members(child) and not session_members(watchdog))


def test_watchdog_spares_sessions_that_have_ended() -> None:
    """Their numbers may belong to somebody else by now."""
    assert remaining_sessions(["+10\n", "+11\n", "-10\n", "+12\n"]) == {11, 12}


def _wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, "it did not come true"
        time.sleep(0.01)
