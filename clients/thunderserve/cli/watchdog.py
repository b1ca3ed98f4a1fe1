"""The process that ends a fleet whose supervisor is gone.

A supervisor that is killed with SIGKILL can end nothing. Its watchdog holds the other end of a
pipe: the pipe's end is the supervisor's end, however it came about. It reads `+SESSION` for each
child that starts and `-SESSION` for each that has ended whole, and kills what is left.
"""

from __future__ import annotations

import signal
import sys
from typing import TYPE_CHECKING

from thunderserve.cli.sessions import kill_session, sessions_marked

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["main", "remaining_sessions"]


def main(fleet: str) -> int:
    """Wait for the end of stdin, then kill what is left of `fleet`."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    # The marks find a child that started in the instant before its line was written.
    for session in remaining_sessions(sys.stdin) | sessions_marked(fleet):
        kill_session(session)
    return 0


def remaining_sessions(lines: Iterable[str]) -> set[int]:
    """Sessions that started and have not ended."""
    remaining: set[int] = set()
    for line in lines:
        session = int(line[1:])
        if line.startswith("+"):
            remaining.add(session)
        else:
            remaining.discard(session)
    return remaining


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1]))
