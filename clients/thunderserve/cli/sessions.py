"""Process sessions, read from /proc: a child and whatever it started, unless that left on purpose.

A session outlives its leader's death, so it finds the orphans that a process tree loses.
"""

from __future__ import annotations

import contextlib
import os
import signal
from pathlib import Path

__all__ = ["FLEET_VARIABLE", "kill_session", "session_members", "sessions_marked"]

# Every process of a fleet carries the fleet's own value of it.
FLEET_VARIABLE = "THUNDERSERVE_FLEET"


def session_members(session: int) -> list[int]:
    """Processes of a session that still run; zombies have ended already."""
    return [pid for pid in _processes() if _session_of(pid) == session]


def sessions_marked(fleet: str) -> set[int]:
    """Sessions of the processes that were started with `FLEET_VARIABLE` set to `fleet`."""
    mark = f"{FLEET_VARIABLE}={fleet}".encode()
    return {_session_of(pid) for pid in _processes() if mark in _environment(pid)} - {0}


def kill_session(session: int) -> None:
    """SIGKILL every process of a session."""
    for pid in session_members(session):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def _processes() -> list[int]:
    return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdecimal()]


def _session_of(pid: int) -> int:
    """0 for a process that has ended."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return 0
    # `pid (command) state ppid pgrp session ...`; the command may hold spaces and brackets.
    state, _parent, _group, session = stat.rpartition(")")[2].split()[:4]
    return 0 if state == "Z" else int(session)


def _environment(pid: int) -> list[bytes]:
    try:
        return Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:  # it has ended, or is another user's
        return []
