"""The links between emulated groups: how long a KV cache takes over them."""

from __future__ import annotations

import asyncio
import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from thunderserve.core.errors import TransferError

if TYPE_CHECKING:
    from thunderserve.core.cost import CostModel
    from thunderserve.core.hardware import Cluster, Link
    from thunderserve.engine.emulated.clock import EmulatedClock

__all__ = ["EmulatedNetwork", "Ends"]

Ends = tuple[str, str]


@dataclass(slots=True)
class _Port:
    """Chunks pass it one by one."""

    free_s: float = 0.0


class EmulatedNetwork:
    """The ports of a cluster's hosts, shared by all engines of one process.

    A chunk queues at the sending host's port, then at the receiving one's; a link that was measured
    slower than both is a port of its own. A host's groups exchange over its local link.

    Args:
        cluster: Hosts and links.
        cost: Says what a transfer takes on an idle link.
        bytes_per_token: On the wire.
        clock: The fleet's.
    """

    def __init__(
        self, cluster: Cluster, cost: CostModel, bytes_per_token: float, clock: EmulatedClock
    ) -> None:
        self.clock = clock
        self._cluster, self._cost = cluster, cost
        self._bytes_per_token = bytes_per_token
        self._ports: dict[Ends, _Port] = {}
        self._targets: dict[int, str] = {}
        self._slower: dict[Ends, float] = {}

    def expect(self, room: int, target: str) -> None:
        """A room's cache is to go to a group on this host."""
        self._targets[room] = target

    def forget(self, room: int) -> None:
        """The room has ended."""
        self._targets.pop(room, None)

    def degrade(self, source: str, target: str, factor: float) -> None:
        """Make the way from one host to another slower: 1 as it is, infinity cuts it."""
        self._slower[source, target] = factor

    def send(self, room: int, source: str, tokens: int, at_s: float) -> float:
        """Put a chunk on its way and say when it arrives.

        Raises:
            TransferError: The way is cut.
        """
        target = self._targets.get(room, source)
        slower = self._slower.get((source, target), 1.0)
        if math.isinf(slower):
            raise TransferError(f"room {room}: the link from {source} to {target} is cut")
        link = self._cluster.link(source, target)
        through_s = at_s
        for key, bandwidth in self._way(source, target, link):
            port = self._ports.setdefault(key, _Port())
            start_s = max(at_s, port.free_s)
            port.free_s = start_s + self._passing_s(tokens, bandwidth) * slower
            through_s = max(through_s, port.free_s)
            at_s = start_s
        return through_s + link.latency_s * slower

    async def wait_arrival(self, moment_s: float) -> None:
        """Until the fleet's clock shows that moment."""
        await self.clock.sleep_until(moment_s, asyncio.Event())

    def _way(self, source: str, target: str, link: Link) -> list[tuple[Ends, Link]]:
        if source == target:
            return [((source, target), link)]
        out, into = self._cluster.node(source).network, self._cluster.node(target).network
        between = [] if link in {out, into} else [((source, target), link)]
        return [((source, "out"), out), *between, ((target, "in"), into)]

    def _passing_s(self, tokens: int, link: Link) -> float:
        idle = replace(link, latency_s=0.0)
        return self._cost.transfer_s(tokens * self._bytes_per_token, idle)
