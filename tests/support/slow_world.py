"""Processes that sleep and wait for bells: what the slow simulator is made of."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field


class Bell:
    """Processes wait for it to ring."""

    def __init__(self) -> None:
        self.waiting: list[Process] = []


Process = Iterator[float | Bell]


class World:
    """Runs processes, each of which yields the moment it sleeps until, or a bell."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self._queue: list[tuple[float, int, Process]] = []
        self._order = itertools.count()

    def spawn(self, process: Process) -> None:
        heapq.heappush(self._queue, (self.now_s, next(self._order), process))

    def ring(self, bell: Bell) -> None:
        for process in bell.waiting:
            self.spawn(process)
        bell.waiting = []

    def run(self) -> None:
        while self._queue:
            self.now_s, _, process = heapq.heappop(self._queue)
            wait = next(process, None)
            if isinstance(wait, Bell):
                wait.waiting.append(process)
            elif wait is not None:
                heapq.heappush(self._queue, (wait, next(self._order), process))


@dataclass(eq=False)
class Port:
    """Serves chunks one by one."""

    s_per_byte: float
    queue: list[Chunk] = field(default_factory=list)
    bell: Bell = field(default_factory=Bell)


@dataclass(eq=False)
class Chunk:
    """Bytes, the ports that they pass, and what follows."""

    size_bytes: float
    ports: list[Port]
    latency_s: float
    arrive: Callable[[], None]
    entered: int = 0
    passed: int = 0


def enter_next_port(world: World, chunk: Chunk) -> None:
    port = chunk.ports[chunk.entered]
    chunk.entered += 1
    port.queue.append(chunk)
    world.ring(port.bell)


def serve_port(world: World, port: Port) -> Process:
    while True:
        if not port.queue:
            yield port.bell
            continue
        chunk = port.queue.pop(0)
        if chunk.entered < len(chunk.ports):
            enter_next_port(world, chunk)  # it flows on at once
        yield world.now_s + chunk.size_bytes * port.s_per_byte
        chunk.passed += 1
        if chunk.passed == len(chunk.ports):
            world.spawn(_deliver(world, chunk))


def _deliver(world: World, chunk: Chunk) -> Process:
    yield world.now_s + chunk.latency_s
    chunk.arrive()
