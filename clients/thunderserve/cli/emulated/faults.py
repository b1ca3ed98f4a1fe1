"""What can be broken in an emulated fleet, and mended; every fault is noted in a history."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from thunderserve.cli.emulated.fleet import EmulatedFleet
    from thunderserve.cli.load.history import History

__all__ = ["Faults"]


class Faults:
    """Breaks a running fleet.

    A group that is killed loses worker and sidecar, as its host's loss would take both. A frozen or
    slow group is grey: its engine stands still or crawls while its process answers and its
    heartbeats go on; what SIGSTOP does to a whole process needs a process (`thunderserve up`).

    Args:
        fleet: Started.
        history: Gets a line for each.
    """

    def __init__(self, fleet: EmulatedFleet, history: History) -> None:
        self._fleet = fleet
        self._history = history

    async def kill(self, name: str) -> float:
        """Kill `control`, `router` or a group as SIGKILL does; returns the moment."""
        at_s = self._history.note_fault(f"kill {name}")
        for member in self._fleet.members_of(name):
            await member.kill()
        return at_s

    async def kill_node(self, node: str) -> tuple[str, ...]:
        """Kill every group of a host; returns them."""
        groups = tuple(g.id for g in self._fleet.plan.groups if g.gpus[0].node == node)
        for group in groups:
            await self.kill(group)
        return groups

    def restart(self, name: str) -> float:
        """Start again what was killed or stopped: a new process, with nothing remembered."""
        at_s = self._history.note_fault(f"restart {name}")
        for member in self._fleet.members_of(name):
            member.start()
        return at_s

    def slow_down(self, group_id: str, factor: float) -> float:
        """Let a group's engine take so many times as long; infinity freezes it, 1 mends it."""
        at_s = self._history.note_fault(f"slow {group_id} by {factor:g}")
        self._fleet.engines[group_id].clock.slow_down(factor)
        return at_s

    def freeze(self, group_id: str) -> float:
        """Let a group's engine stand still."""
        return self.slow_down(group_id, math.inf)

    def thaw(self, group_id: str) -> float:
        """Let it go on where it was."""
        return self.slow_down(group_id, 1.0)

    def degrade_link(self, source: str, target: str, factor: float) -> float:
        """Make the way from one host to another so many times slower; infinity cuts it."""
        at_s = self._history.note_fault(f"link {source} -> {target} by {factor:g}")
        self._fleet.network.degrade(source, target, factor)
        return at_s
