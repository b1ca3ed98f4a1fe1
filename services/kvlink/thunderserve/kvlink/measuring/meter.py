"""Looks at the bulk connections to each peer again and again, and keeps an estimate of each link.

The kernel counts; nothing is done for a byte that is sent. While bytes move a look is taken every
20 ms, else four times a second, and none when no connection is left.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from thunderserve.kvlink.measuring.estimate import LinkEstimate, Window
from thunderserve.kvlink.measuring.tcp_info import TcpInfo, read_tcp_info

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from thunderserve.kvlink.measuring.probe import Probe

__all__ = ["LinkMeter", "window_between"]

_ACTIVE_S = 0.02
_IDLE_S = 0.25
_MAX_PEERS = 64
_USED_S = 3600.0  # whoever was sent nothing for so long may be gone
# One connection was busy nearly all the time that any was, or nearly all the time there was.
_ALONE_RATIO = 1.05
_SATURATED_RATIO = 0.9

_Pair = tuple[TcpInfo, TcpInfo]


class LinkMeter:
    """Estimates of at most 64 peers; the one that was measured longest ago makes room.

    Args:
        clock: Seconds that only grow.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._estimates: dict[str, LinkEstimate] = {}
        self._connections: dict[int, tuple[str, socket.socket, TcpInfo]] = {}
        self._used_s: dict[str, float] = {}
        self._looked_s = 0.0
        self._task: asyncio.Task[None] | None = None

    def estimate(self, peer: str) -> LinkEstimate:
        """What is thought of the link to a peer; unknown when nothing is."""
        return self._estimates.get(peer, LinkEstimate())

    @property
    def estimates(self) -> dict[str, LinkEstimate]:
        """Of every peer that has a rate."""
        return {peer: found for peer, found in self._estimates.items() if found.known}

    def watch(self, peer: str, connection: socket.socket | None) -> None:
        """Count a connection's bytes as of the link to `peer`, until it ends.

        Without a socket nothing is counted; a probe may still measure the link.
        """
        self._use(peer)
        if connection is None or (info := read_tcp_info(connection)) is None:
            return
        if connection.fileno() not in self._connections:
            self._connections[connection.fileno()] = (peer, connection, info)
        if self._task is None or self._task.done():
            self._looked_s = self._clock()
            self._task = asyncio.get_running_loop().create_task(self._run())

    def look(self) -> bool:
        """Take one look; True when bytes moved since the last one."""
        now_s = self._clock()
        elapsed_s, self._looked_s = now_s - self._looked_s, now_s
        pairs: dict[str, list[_Pair]] = {}
        for number, (peer, connection, before) in tuple(self._connections.items()):
            after = read_tcp_info(connection)
            if after is None or after.acked_bytes < before.acked_bytes:
                del self._connections[number]
                continue
            self._connections[number] = (peer, connection, after)
            if after.busy_s > before.busy_s:
                pairs.setdefault(peer, []).append((before, after))
        for peer, found in pairs.items():
            if (window := window_between(found, elapsed_s)) is not None:
                self._keep(peer, self.estimate(peer).add(window, now_s))
        return bool(pairs)

    def unconfirmed(self, for_s: float) -> list[str]:
        """Peers that transfers went to lately, and whose rate nothing has told for so long."""
        now_s = self._clock()
        return [
            peer
            for peer, used_s in self._used_s.items()
            if now_s - used_s < _USED_S
            and not (self.estimate(peer).known and now_s - self._measured_s(peer) < for_s)
        ]

    def probed(self, peer: str, probe: Probe) -> None:
        """A probe found a rate."""
        self._keep(peer, self.estimate(peer).probed(probe, self._clock()))

    def forget(self, peer: str) -> None:
        """It cannot be reached: it is as if nothing had gone there, until something does."""
        self._used_s.pop(peer, None)

    def close(self) -> None:
        """Look no more."""
        if self._task is not None:
            self._task.cancel()

    def _use(self, peer: str) -> None:
        self._used_s.pop(peer, None)
        self._used_s[peer] = self._clock()  # the last place is the most recently used
        if len(self._used_s) > _MAX_PEERS:
            del self._used_s[next(iter(self._used_s))]

    def _keep(self, peer: str, estimate: LinkEstimate) -> None:
        if peer not in self._estimates and len(self._estimates) >= _MAX_PEERS:
            del self._estimates[min(self._estimates, key=self._measured_s)]
        self._estimates[peer] = estimate

    def _measured_s(self, peer: str) -> float:
        return self._estimates[peer].measured_s

    async def _run(self) -> None:
        moved = True
        while self._connections:
            await asyncio.sleep(_ACTIVE_S if moved else _IDLE_S)
            moved = self.look()


def window_between(looks: list[_Pair], elapsed_s: float) -> Window | None:
    """What happened between two looks at the connections of one peer.

    The kernel counts each connection's busy time; of several that were busy for a part of it,
    nobody knows whether at once or in turn, and such a window is left out.
    """
    busy = [_busy_s(after) - _busy_s(before) for before, after in looks]
    longest = max(busy)
    if sum(busy) > _ALONE_RATIO * longest and longest < _SATURATED_RATIO * elapsed_s:
        return None
    rtts = [after.rtt_s for _, after in looks if after.rtt_s > 0]
    return Window(
        acked_bytes=sum(after.acked_bytes - before.acked_bytes for before, after in looks),
        busy_s=max(0.0, longest),
        sent_bytes=sum(after.sent_bytes - before.sent_bytes for before, after in looks),
        repeated_bytes=sum(after.repeated_bytes - before.repeated_bytes for before, after in looks),
        rtt_s=min(rtts, default=0.0),
        short_of_data=all(after.short_of_data for _, after in looks),
    )


def _busy_s(info: TcpInfo) -> float:
    return info.busy_s - info.blocked_s
