"""Sidecars that are killed, and ones whose memory is watched while peers and engines misbehave."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

import numpy as np
import psutil  # type: ignore[import-untyped]  # it ships no types
import pytest
from two_sidecars import TwoSidecars, two_sidecars

from thunderserve.core.errors import TransferError
from thunderserve.core.kv import KvLayout

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

LAYOUT = KvLayout("kill", 4, 2, 64, 16, "bfloat16")
TINY = KvLayout("tiny", 1, 1, 16, 1, "bfloat16")
WAIT_S = 20
BUFFERS_MB = 2 * 8 * 4  # both pools of both kinds: buffer_count of max_frame_bytes
NOISE_MB = 16


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TwoSidecars]:
    with two_sidecars(tmp_path_factory.mktemp("pair"), LAYOUT, wire_mode="raw16") as pair:
        yield pair


def move_until_it_arrives(pair: TwoSidecars, first_room: int, cache: np.ndarray) -> None:
    """The engine's client finds a new sidecar within a second; until then rooms fail by name."""
    deadline_s = time.monotonic() + WAIT_S
    for room in range(first_room, first_room + 1000):
        assert time.monotonic() < deadline_s
        try:
            pair.receiving.place(room).cache = np.zeros_like(cache)
            pair.receiver.reserve(room, pair.prefill.address, cache.shape[2])
        except TransferError:
            time.sleep(0.05)
            continue
        place = pair.receiving.place(room)
        while not (place.ended.is_set() or pair.sending.place(room).reserved.is_set()):
            assert time.monotonic() < deadline_s
            time.sleep(0.01)
        if not place.ended.is_set():
            break
    sent, received, arrived, _ = finish(pair, room, cache)
    assert (sent, received) == ("committed", "committed")
    assert np.array_equal(arrived, cache)


def finish(
    pair: TwoSidecars, room: int, cache: np.ndarray
) -> tuple[str, str, np.ndarray | None, bytes]:
    pair.sender.send_pages(room, 0, cache)
    pair.sender.send_aux(room, b"aux")
    pair.sender.finish(room)
    here, there = pair.sending.place(room), pair.receiving.place(room)
    assert here.ended.wait(WAIT_S)
    assert there.ended.wait(WAIT_S)
    return here.outcome, there.outcome, there.cache, there.aux


def test_both_engines_hear_and_go_on_when_the_decode_sidecar_is_killed_and_returns(
    pair: TwoSidecars, make_cache: Callable[..., np.ndarray]
) -> None:
    """K4: SIGKILL amid a transfer, then a new process at the same address."""
    cache = make_cache(LAYOUT, 8)
    pair.offer(1, cache)
    pair.sender.send_pages(1, 0, cache[:, :, :4])
    arrived = pair.receiving.place(1).cache
    deadline_s = time.monotonic() + WAIT_S
    while arrived is None or not arrived.any():
        assert time.monotonic() < deadline_s
        time.sleep(0.01)

    pair.decode.kill()

    assert pair.receiving.place(1).ended.wait(WAIT_S)
    assert "went away" in pair.receiving.place(1).outcome
    assert pair.sending.place(1).ended.wait(WAIT_S)
    assert "did not take the cache" in pair.sending.place(1).outcome
    pair.decode.start()
    pair.decode.wait_ready()
    move_until_it_arrives(pair, 100, cache)


@pytest.mark.sweep
@pytest.mark.timeout(300)
def test_memory_is_bounded_when_the_decode_engine_does_not_read(
    pair: TwoSidecars, make_cache: Callable[..., np.ndarray]
) -> None:
    """K2: 256 MB wait in the prefill engine, not in a sidecar, and then arrive."""
    cache = np.tile(make_cache(LAYOUT, 64), (1, 1, 128, 1, 1, 1))
    pair.move(2001, cache[:, :, :64], b"aux")
    before = pair.prefill.books(), pair.decode.books()
    gate, write = threading.Event(), pair.receiving.on_pages

    def wait_then_write(*args: object) -> None:
        gate.wait()
        write(*args)  # type: ignore[arg-type]  # as they came

    pair.receiving.on_pages = wait_then_write  # type: ignore[method-assign]  # slow it down
    pair.offer(2002, cache)
    sending = threading.Thread(target=lambda: finish(pair, 2002, cache))
    sending.start()
    sending.join(5)

    after = pair.prefill.books(), pair.decode.books()
    assert sending.is_alive()
    for was, is_ in zip(before, after, strict=True):
        assert is_.resident_mb < was.resident_mb + BUFFERS_MB + NOISE_MB, (before, after)
    gate.set()
    sending.join(60)
    pair.receiving.on_pages = write  # type: ignore[method-assign]  # as it was
    assert pair.receiving.place(2002).outcome == "committed"
    assert np.array_equal(pair.receiving.place(2002).cache, cache)


@pytest.mark.sweep
@pytest.mark.timeout(1200)
def test_cache_arrives_in_bounded_memory_when_it_comes_in_a_million_frames(
    tmp_path: Path, make_cache: Callable[..., np.ndarray], capsys: pytest.CaptureFixture[str]
) -> None:
    """K3: 64 bytes each."""
    pages = 1_000_000
    cache = np.resize(make_cache(TINY, 1000), TINY.block_shape(1, pages))
    with two_sidecars(tmp_path, TINY, wire_mode="raw16", transfer_timeout_s="1200") as pair:
        pair.move(1, cache[:, :, :100], b"aux")
        before = pair.prefill.books(), pair.decode.books()
        pair.offer(2, cache)
        started_s = time.monotonic()
        for page in range(pages):
            pair.sender.send_pages(2, page, cache[:, :, page : page + 1])
        pair.sender.send_aux(2, b"aux")
        pair.sender.finish(2)
        assert pair.receiving.place(2).ended.wait(600)
        after = pair.prefill.books(), pair.decode.books()
        with capsys.disabled():
            seconds = time.monotonic() - started_s
            print(f"\n{pages} frames in {seconds:.0f} s: {before} -> {after}")  # noqa: T201 - record
        assert pair.receiving.place(2).outcome == "committed"
        assert np.array_equal(pair.receiving.place(2).cache, cache)
        for was, is_ in zip(before, after, strict=True):
            assert is_.resident_mb < was.resident_mb + NOISE_MB


def test_sidecar_listens_on_its_one_port_and_three_sockets_alone(pair: TwoSidecars) -> None:
    """Nothing else can be spoken to, from this host or another."""
    for sidecar in (pair.prefill, pair.decode):
        process = psutil.Process(sidecar.process.pid)
        listening = [each for each in process.net_connections("inet") if each.status == "LISTEN"]
        folder = str(sidecar.engine_socket.parent)
        sockets = {each.laddr for each in process.net_connections("unix") if each.laddr}

        addresses = [f"{each.laddr.ip}:{each.laddr.port}" for each in listening]
        assert addresses == [sidecar.address]
        assert {path for path in sockets if isinstance(path, str)} == {
            f"{folder}/{name}" for name in ("engine", "engine.peers", "local")
        }
