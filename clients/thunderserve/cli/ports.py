"""Ports for processes that will listen on them later."""

from __future__ import annotations

import contextlib
import random
import socket
from pathlib import Path

from thunderserve.core.errors import UnavailableError

__all__ = ["CONTROL_PORT", "HTTP_PORT", "ROUTER_PORT", "FreePorts"]

# Where a fleet's three entrances are found unless somebody else is there.
CONTROL_PORT, ROUTER_PORT, HTTP_PORT = 7700, 7701, 8000
FIRST_PORT = 10_000
LAST_PORT = 65_535
_RANGE_FILE = Path("/proc/sys/net/ipv4/ip_local_port_range")


class FreePorts:
    """Free ports of loopback, none of them twice.

    They are below the range from which the kernel gives ports to outgoing connections: a service
    that loads a model for half a minute before it listens must still find its port free.
    """

    def __init__(self) -> None:
        end = max(_first_ephemeral_port(), FIRST_PORT + 10_000)
        candidates = list(range(FIRST_PORT, min(end, LAST_PORT)))
        random.shuffle(candidates)  # two fleets that start at once seldom want the same port
        self._candidates = candidates
        self._preferred: set[int] = set()

    def take(self, preferred: int = 0) -> int:
        """A free port: the preferred one if it is given and free, else the next.

        Raises:
            UnavailableError: There is none.
        """
        if preferred and preferred not in self._preferred and _is_free(preferred):
            self._preferred.add(preferred)
            return preferred
        while self._candidates:
            port = self._candidates.pop()
            if _is_free(port):
                return port
        raise UnavailableError("no port of 127.0.0.1 is free")


def _is_free(port: int) -> bool:
    with contextlib.closing(socket.socket()) as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def _first_ephemeral_port() -> int:
    try:
        return int(_RANGE_FILE.read_text(encoding="ascii").split()[0])
    except (OSError, ValueError, IndexError):
        return LAST_PORT
