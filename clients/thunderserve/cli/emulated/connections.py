"""Connections of this process, dropped from below: what peers see when a process is killed."""

from __future__ import annotations

import contextlib
import os
import socket
import stat
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

__all__ = ["drop_connections"]


def drop_connections(addresses: Iterable[str]) -> int:
    """Shut every TCP socket of this process that is bound to one of these addresses.

    Whoever owns a socket finds it closed by the other side; the peer too. Linux alone.

    Args:
        addresses: `host:port` each.

    Returns:
        How many sockets were shut.
    """
    ports = {int(address.rpartition(":")[2]) for address in addresses}
    shut = 0
    for each in _sockets():
        with each, contextlib.suppress(OSError):
            if each.getsockname()[1] in ports:
                each.shutdown(socket.SHUT_RDWR)
                shut += 1
    return shut


def _sockets() -> Iterator[socket.socket]:
    """Duplicates of this process's TCP sockets; shutting one shuts the connection itself."""
    for entry in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):
            descriptor = int(entry.name)
            if not stat.S_ISSOCK(os.fstat(descriptor).st_mode):
                continue  # no socket object would close its duplicate
            each = socket.socket(fileno=os.dup(descriptor))
            if each.family in {socket.AF_INET, socket.AF_INET6}:
                yield each
            else:
                each.close()
