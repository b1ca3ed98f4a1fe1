"""Two sidecars in processes of their own, with an engine each that has nothing to compute."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import grpc
import numpy as np
import psutil  # type: ignore[import-untyped]  # it ships no types
from identities import issue
from kvlink_sides import free_port

from thunderserve.core.kv import KvLayout
from thunderserve.core.plan import Phase
from thunderserve.kvlink.engine_client import EngineClient

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from thunderserve.kvlink.protocol import Block

__all__ = ["Books", "SidecarProcess", "SyntheticEngine", "TwoSidecars", "two_sidecars"]

_WAIT_S = 30


@dataclass(frozen=True)
class Books:
    """What a process holds."""

    descriptors: int
    resident_mb: float


class SidecarProcess:
    """`python -m thunderserve.kvlink`."""

    def __init__(self, folder: Path, settings: dict[str, str]) -> None:
        self.address = f"127.0.0.1:{free_port()}"
        self.engine_socket = folder / "engine"
        self._local_address = f"unix:{folder}/local"
        values = {
            "address": self.address,
            "identity": str(issue(folder / "identity")),
            "local_address": self._local_address,
            "engine_socket": str(self.engine_socket),
            **settings,
        }
        arguments = [w for key, value in values.items() for w in ("--set", f"{key}={value}")]
        command = [
            sys.executable,
            "-m",
            "thunderserve.kvlink",
            "--log-level",
            "warning",
            *arguments,
        ]
        self._command = command
        self.start()

    def start(self) -> None:
        """Also again, at the same address."""
        self.process = subprocess.Popen(self._command)

    def kill(self) -> None:
        """Nothing is said to anybody."""
        self.process.kill()
        self.process.wait()

    def wait_ready(self) -> None:
        """A signal to a process that is still being imported would just end it."""
        with grpc.insecure_channel(self._local_address) as channel:
            grpc.channel_ready_future(channel).result(timeout=60)

    def books(self) -> Books:
        """Now."""
        process = psutil.Process(self.process.pid)
        return Books(process.num_fds(), round(process.memory_info().rss / 1e6, 1))

    def stop(self) -> None:
        """End it as an operator does."""
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(10) == 0


@dataclass
class _Place:
    cache: np.ndarray | None = None
    aux: bytes = b""
    outcome: str = ""
    reserved: threading.Event = field(default_factory=threading.Event)
    ended: threading.Event = field(default_factory=threading.Event)


class SyntheticEngine:
    """Keeps what the sidecar tells of each room until it is forgotten."""

    def __init__(self) -> None:
        self._places: dict[int, _Place] = {}
        self._lock = threading.Lock()

    def place(self, room: int) -> _Place:
        """Made at the first word of a room."""
        with self._lock:
            return self._places.setdefault(room, _Place())

    def forget(self, room: int) -> None:
        """The room has been looked at."""
        with self._lock:
            self._places.pop(room, None)

    def on_reserved(self, room: int, page_count: int) -> None:
        """See `EngineEvents`."""
        del page_count
        self.place(room).reserved.set()

    def on_pages(self, room: int, block: Block, values: np.ndarray) -> None:
        """See `EngineEvents`."""
        cache = self.place(room).cache
        assert cache is not None
        cache[block.slices()] = values

    def on_aux(self, room: int, aux: bytes) -> None:
        """See `EngineEvents`."""
        self.place(room).aux = aux

    def on_committed(self, room: int) -> None:
        """See `EngineEvents`."""
        self._end(room, "committed")

    def on_failed(self, room: int, reason: str) -> None:
        """See `EngineEvents`."""
        self._end(room, reason)

    def _end(self, room: int, outcome: str) -> None:
        place = self.place(room)
        place.outcome = outcome
        place.reserved.set()
        place.ended.set()


@dataclass
class TwoSidecars:
    """Prefill and decode; one call moves one cache."""

    layout: KvLayout
    prefill: SidecarProcess
    decode: SidecarProcess
    sender: EngineClient
    receiver: EngineClient
    sending: SyntheticEngine
    receiving: SyntheticEngine

    def offer(self, room: int, cache: np.ndarray) -> None:
        """Both sides have the room ready."""
        self.receiving.place(room).cache = np.zeros_like(cache)
        self.receiver.reserve(room, self.prefill.address, cache.shape[2])
        assert self.sending.place(room).reserved.wait(_WAIT_S), room

    def move(self, room: int, cache: np.ndarray, aux: bytes) -> tuple[str, str, np.ndarray, bytes]:
        """Outcomes of prefill and decode, and what arrived."""
        self.offer(room, cache)
        self.sender.send_pages(room, 0, cache)
        self.sender.send_aux(room, aux)
        self.sender.finish(room)
        here, there = self.sending.place(room), self.receiving.place(room)
        assert here.ended.wait(_WAIT_S), room
        assert there.ended.wait(_WAIT_S), room
        self.sending.forget(room)
        self.receiving.forget(room)
        return here.outcome, there.outcome, there.cache, there.aux


@contextlib.contextmanager
def two_sidecars(folder: Path, layout: KvLayout, **settings: str) -> Iterator[TwoSidecars]:
    """Started and ready; stopped at the end."""
    sidecars = []
    for name in ("prefill", "decode"):
        (folder / name).mkdir()
        sidecars.append(SidecarProcess(folder / name, settings))
    for sidecar in sidecars:
        sidecar.wait_ready()
    prefill, decode = sidecars
    engines = SyntheticEngine(), SyntheticEngine()
    sender = EngineClient(prefill.engine_socket, layout, Phase.PREFILL, engines[0])
    receiver = EngineClient(decode.engine_socket, layout, Phase.DECODE, engines[1])
    try:
        sender.start(_WAIT_S)
        receiver.start(_WAIT_S)
        yield TwoSidecars(layout, prefill, decode, sender, receiver, *engines)
    finally:
        sender.close()
        receiver.close()
        for sidecar in sidecars:
            sidecar.stop()
