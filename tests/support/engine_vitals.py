"""What a process and its children hold of the system, and whom they are connected with."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import psutil  # type: ignore[import-untyped]  # it ships no types

__all__ = ["Vitals", "foreign_connections", "shared_segments", "tree", "vitals"]


@dataclass(frozen=True, slots=True)
class Vitals:
    """Of one process."""

    pid: int
    threads: int
    sockets: int
    descriptors: int


def tree(pid: int) -> list[psutil.Process]:
    """The process and all below it."""
    root = psutil.Process(pid)
    return [root, *root.children(recursive=True)]


def vitals(pid: int) -> list[Vitals]:
    """Of the process and all below it."""
    return [
        Vitals(p.pid, p.num_threads(), len(p.net_connections("all")), p.num_fds())
        for p in tree(pid)
    ]


def shared_segments() -> set[str]:
    """Names of the host's shared memory."""
    return {path.name for path in Path("/dev/shm").iterdir()}  # noqa: S108 - looked at alone


def foreign_connections(pid: int) -> list[tuple[object, object]]:
    """Network connections of the process and those below it with any process but these."""
    found = [c for p in tree(pid) for c in p.net_connections("inet")]
    own = {c.laddr.port for c in found}
    return [(c.laddr, c.raddr) for c in found if c.raddr and c.raddr.port not in own]
