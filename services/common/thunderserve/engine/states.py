"""Where a host stands, and what it reports.

::

    STOPPED --start--> SERVING <--switch--> SWITCHING
                          |                     |
                          +-----> FAILED <------+      the process is to end
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from thunderserve.core.request import TransferReport

__all__ = ["HostState", "PrefillEvent", "SwitchReport"]

PrefillEvent = int | TransferReport


class HostState(StrEnum):
    """What a host does with a leg: only `SERVING` takes it."""

    STOPPED = "STOPPED"
    SERVING = "SERVING"
    SWITCHING = "SWITCHING"
    FAILED = "FAILED"


@dataclass(frozen=True, slots=True)
class SwitchReport:
    """What a change of phase took: waiting for legs in flight, then changing the engine."""

    drain_s: float = 0.0
    switch_s: float = 0.0
