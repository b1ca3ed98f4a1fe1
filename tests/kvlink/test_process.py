"""The sidecar as its own process, on the event loop that it really runs on."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import numpy as np
import pytest
from identities import issue

from thunderserve.core.errors import PreconditionError, UnavailableError
from thunderserve.core.kv import KvLayout
from thunderserve.core.plan import Phase
from thunderserve.kvlink.__main__ import main
from thunderserve.kvlink.engine_client import EngineClient

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

LAYOUT = KvLayout("big", 4, 2, 64, 16, "bfloat16")
PAGES = 192  # 6 MiB: two frames of 4 MiB


@dataclass
class Sidecar:
    """A process and where to reach it."""

    process: subprocess.Popen[bytes]
    address: str
    local_address: str
    engine_socket: Path


def start_sidecar(folder: Path, *settings: str) -> Sidecar:
    address, socket_path = f"127.0.0.1:{free_port()}", folder / "engine"
    local_address = f"unix:{folder}/local"
    values = (
        f"address={address}",
        f"local_address={local_address}",
        f"engine_socket={socket_path}",
        f"identity={issue(folder / 'identity')}",
        *settings,
    )
    arguments = [word for value in values for word in ("--set", value)]
    command = [sys.executable, "-m", "thunderserve.kvlink", "--log-level", "warning", *arguments]
    return Sidecar(subprocess.Popen(command), address, local_address, socket_path)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def sidecars(tmp_path: Path) -> Iterator[tuple[Sidecar, Sidecar]]:
    pair = []
    for name in ("prefill", "decode"):
        (tmp_path / name).mkdir()
        pair.append(start_sidecar(tmp_path / name, "wire_mode=raw16"))
    for sidecar in pair:  # a signal to a process that is still being imported just ends it
        with grpc.insecure_channel(sidecar.local_address) as channel:
            grpc.channel_ready_future(channel).result(timeout=60)
    yield pair[0], pair[1]
    for sidecar in pair:
        sidecar.process.send_signal(signal.SIGTERM)
        assert sidecar.process.wait(10) == 0
        assert not sidecar.engine_socket.exists()


class Engine:
    """Either phase; keeps what came and tells when rooms change."""

    def __init__(self) -> None:
        self.caches: dict[int, np.ndarray] = {}
        self.reserved: dict[int, threading.Event] = {}
        self.ended: dict[int, threading.Event] = {}
        self.outcome: dict[int, str] = {}

    def expect(self, room: int) -> None:
        self.reserved[room], self.ended[room] = threading.Event(), threading.Event()
        self.caches[room] = np.zeros(LAYOUT.block_shape(4, PAGES), np.uint16)

    def on_reserved(self, room: int, page_count: int) -> None:
        assert page_count == PAGES
        self.reserved[room].set()

    def on_pages(self, room: int, block: Any, values: np.ndarray) -> None:
        layers = slice(block.first_layer, block.first_layer + block.layer_count)
        pages = slice(block.first_page, block.first_page + block.page_count)
        self.caches[room][layers, :, pages] = values

    def on_aux(self, room: int, aux: bytes) -> None:
        assert aux == b"%d" % room

    def on_committed(self, room: int) -> None:
        self._end(room, "committed")

    def on_failed(self, room: int, reason: str) -> None:
        self._end(room, reason)

    def _end(self, room: int, outcome: str) -> None:
        self.outcome[room] = outcome
        self.ended[room].set()


def test_caches_arrive_when_rooms_run_in_parallel_on_uvloop(
    sidecars: tuple[Sidecar, Sidecar], make_cache: Callable[..., np.ndarray]
) -> None:
    """No buffer is used again before the system has taken its bytes."""
    prefill, decode = Engine(), Engine()
    sender = EngineClient(sidecars[0].engine_socket, LAYOUT, Phase.PREFILL, prefill)
    receiver = EngineClient(sidecars[1].engine_socket, LAYOUT, Phase.DECODE, decode)
    sender.start(30)
    receiver.start(30)
    caches = {room: make_cache(LAYOUT, PAGES, seed=room) for room in range(1, 7)}

    def send(room: int) -> None:
        assert prefill.reserved[room].wait(20)
        sender.send_pages(room, 0, caches[room])
        sender.send_aux(room, b"%d" % room)
        sender.finish(room)

    try:
        for room in caches:
            prefill.expect(room)
            decode.expect(room)
            receiver.reserve(room, sidecars[0].address, PAGES)
        with ThreadPoolExecutor(3) as pool:
            list(pool.map(send, caches))
        for room, cache in caches.items():
            assert decode.ended[room].wait(20)
            assert prefill.ended[room].wait(20)
            assert (decode.outcome[room], prefill.outcome[room]) == ("committed", "committed")
            assert np.array_equal(decode.caches[room], cache)
    finally:
        sender.close()
        receiver.close()


def test_engine_is_refused_when_its_pages_fit_no_frame(
    sidecars: tuple[Sidecar, Sidecar],
) -> None:
    """The way out is named, before any request comes."""
    layout = KvLayout("wide", 1, 128, 128, 128, "bfloat16")
    client = EngineClient(sidecars[0].engine_socket, layout, Phase.PREFILL, Engine())

    with pytest.raises(PreconditionError, match=r"refused the engine.*max_frame_bytes"):
        client.start(30)


def test_engine_start_fails_when_there_is_no_sidecar(tmp_path: Path) -> None:
    """The path is named, after the time that the caller gave."""
    client = EngineClient(tmp_path / "nowhere", LAYOUT, Phase.PREFILL, Engine())

    with pytest.raises(UnavailableError, match="nowhere"):
        client.start(0.1)


@pytest.mark.parametrize(
    ("setting", "word"),
    [
        ("wire_mod=int4", "wire_mode"),
        ("wire_mode=default", "int4 or raw16"),
        ("local_address=/tmp/x", "unix:/path"),
        ("address=0.0.0.0:7400", "advertised_address"),
        ("address=here", "host:port"),
        ("max_rooms=0", "max_rooms"),
        ("identity=/nowhere", "thunderctl pki issue"),
    ],
)
def test_sidecar_does_not_start_when_its_configuration_is_wrong(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], setting: str, word: str
) -> None:
    """One line that names the key, status 2, no traceback."""
    identity = f"identity={issue(tmp_path / 'identity')}"
    required = (f"local_address=unix:{tmp_path}/l", f"engine_socket={tmp_path}/e", identity)
    arguments = [a for value in (*required, setting) for a in ("--set", value)]

    assert main(arguments) == 2

    error = capsys.readouterr().err
    assert word in error
    assert error.count("\n") == 1
