"""KV caches on the wire: ports that serve chunks in the order in which they come.

Every node has a port out and a port in. A chunk takes its turn in each port that it passes, and
flows through them at once; the slowest decides when it has arrived. A port never idles while a
chunk waits for it alone. Chunks of many requests take turns, so the order of chunks shares a port
about as fairly as parallel connections do.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

from thunderserve.control.planner.design import Design, transfer_shares
from thunderserve.control.planner.simulator.events import Action, Timeline
from thunderserve.core.kv_volume import kv_wire_bytes

if TYPE_CHECKING:
    from thunderserve.control.planner.problem import Problem
    from thunderserve.core.cost import CostModel
    from thunderserve.core.hardware import Link

__all__ = ["Network", "Path", "Wire"]


@dataclass(slots=True, eq=False)
class _Port:
    """Chunks pass it one by one."""

    s_per_byte: float
    free_s: float = 0.0


@dataclass(slots=True, eq=False)
class _Chunk:
    """Bytes on their way; `through_s` is when the ports so far have passed all of them."""

    size_bytes: float
    on_arrival: Action | None
    through_s: float = 0.0


@dataclass(slots=True, eq=False)
class Wire:
    """The way between two nodes, or within one; `latency_s` is once per chunk."""

    source: str
    target: str
    ports: tuple[_Port, ...]
    latency_s: float
    timeline: Timeline
    sent_bytes: float = 0.0

    @property
    def busy_s(self) -> float:
        """How long its narrowest part would need for its bytes alone."""
        return self.sent_bytes * max(port.s_per_byte for port in self.ports)

    def send(self, now_s: float, size_bytes: float, on_arrival: Action | None) -> None:
        """Take a chunk and tell when it has arrived."""
        self.sent_bytes += size_bytes
        self._pass(_Chunk(size_bytes, on_arrival), 0, now_s)

    def _pass(self, chunk: _Chunk, at: int, now_s: float) -> None:
        """Queue in the next port; in the one after it only when the chunk flows."""
        while at < len(self.ports):
            port = self.ports[at]
            start_s = max(now_s, port.free_s)
            port.free_s = start_s + chunk.size_bytes * port.s_per_byte
            chunk.through_s = max(chunk.through_s, port.free_s)
            at += 1
            if start_s > now_s and at < len(self.ports):
                self.timeline.at(start_s, partial(self._pass, chunk, at))
                return
        if chunk.on_arrival is not None:
            self.timeline.at(chunk.through_s + self.latency_s, chunk.on_arrival)


@dataclass(frozen=True, slots=True)
class Path:
    """How a prompt's KV cache gets from one group to another: bytes per token on every wire."""

    parts: tuple[tuple[Wire, float], ...]

    def send(self, now_s: float, tokens: int, on_arrival: Action | None = None) -> None:
        """Take a chunk of that many tokens; tells when each of its parts has arrived."""
        for wire, bytes_per_token in self.parts:
            wire.send(now_s, tokens * bytes_per_token, on_arrival)


class Network:
    """The ports of a cluster, and the paths between groups through them."""

    def __init__(self, problem: Problem, cost: CostModel, timeline: Timeline) -> None:
        self._timeline = timeline
        self._cluster = problem.cluster
        self._cost = cost
        self._bytes_per_token = kv_wire_bytes(problem.model, 1, problem.wire_mode)
        self._ports: dict[tuple[str, str], _Port] = {}
        self._wires: dict[tuple[str, str], Wire] = {}
        self._paths: dict[tuple[Design, Design], Path] = {}

    @property
    def wires(self) -> tuple[Wire, ...]:
        """All that something was sent over."""
        return tuple(wire for wire in self._wires.values() if wire.sent_bytes)

    def path(self, prefill: Design, decode: Design) -> Path:
        """The way from one group to another."""
        if (prefill, decode) not in self._paths:
            parts = tuple(
                (self._wire(*ends), share * self._bytes_per_token)
                for ends, share in transfer_shares(prefill, decode).items()
            )
            self._paths[prefill, decode] = Path(parts)
        return self._paths[prefill, decode]

    def _wire(self, source: str, target: str) -> Wire:
        if (source, target) not in self._wires:
            link = self._cluster.link(source, target)
            ports = [self._port((source, target), link)]
            if source != target:
                ends = self._cluster.node(source).network, self._cluster.node(target).network
                ports = [
                    self._port((source, "out"), ends[0]),
                    *([] if link in ends else ports),
                    self._port((target, "in"), ends[1]),
                ]
            self._wires[source, target] = Wire(
                source, target, tuple(ports), link.latency_s, self._timeline
            )
        return self._wires[source, target]

    def _port(self, key: tuple[str, str], link: Link) -> _Port:
        if key not in self._ports:
            self._ports[key] = _Port(self._cost.transfer_s(1.0, replace(link, latency_s=0.0)))
        return self._ports[key]
