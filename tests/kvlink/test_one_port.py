"""From another network namespace a sidecar is one port."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest
from identities import issue

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PREFIX = f"ts{os.getpid()}"
HOST, PORT = "10.213.7.1", 7400
IP = shutil.which("ip") or ""
SCAN = """
import socket, sys
found = []
for port in range(1, 65536):
    with socket.socket() as probe:
        probe.settimeout(2)
        if probe.connect_ex((sys.argv[1], port)) == 0:
            found.append(port)
print(found)
"""


def ip(*arguments: str) -> None:
    subprocess.run((IP, *arguments), check=True, capture_output=True)


def within(name: str, *command: str) -> tuple[str, ...]:
    return (IP, "netns", "exec", name, *command)


@pytest.fixture
def namespaces() -> Iterator[tuple[str, str]]:
    """Two hosts with one cable between them."""
    inside, outside = f"{PREFIX}a", f"{PREFIX}b"
    try:
        for name in (inside, outside):
            ip("netns", "add", name)
    except subprocess.CalledProcessError as error:
        pytest.skip(f"network namespaces need root: {error.stderr.decode()}")
    try:
        ip("link", "add", "eth0", "netns", inside, "type", "veth", "peer", "eth0", "netns", outside)
        for name, address in ((inside, HOST), (outside, "10.213.7.2")):
            ip("-n", name, "address", "add", f"{address}/30", "dev", "eth0")
            ip("-n", name, "link", "set", "lo", "up")
            ip("-n", name, "link", "set", "eth0", "up")
        yield inside, outside
    finally:
        for name in (inside, outside):
            ip("netns", "delete", name)


@pytest.mark.skipif(not IP, reason="iproute2 is not installed")
def test_scan_finds_one_port_when_it_comes_from_another_host(
    namespaces: tuple[str, str], tmp_path: Path
) -> None:
    """All of TCP is scanned; nothing listens on UDP."""
    settings = (
        f"address=0.0.0.0:{PORT}",
        f"advertised_address={HOST}:{PORT}",
        f"local_address=unix:{tmp_path}/local",
        f"engine_socket={tmp_path}/engine",
        f"identity={issue(tmp_path / 'identity')}",
    )
    words = [word for setting in settings for word in ("--set", setting)]
    command = (sys.executable, "-m", "thunderserve.kvlink", "--log-level", "warning", *words)
    with subprocess.Popen(within(namespaces[0], *command)) as sidecar:
        try:
            _wait_for_socket(tmp_path / "local", sidecar)
            assert _output(within(namespaces[1], sys.executable, "-c", SCAN, HOST)) == f"[{PORT}]"
            udp = _output(within(namespaces[0], "cat", "/proc/net/udp", "/proc/net/udp6"))
            assert all("local_address" in line for line in udp.splitlines()), udp
        finally:
            sidecar.terminate()


def _wait_for_socket(path: Path, process: subprocess.Popen[bytes]) -> None:
    deadline_s = time.monotonic() + 60
    while not path.exists():
        assert process.poll() is None
        assert time.monotonic() < deadline_s
        time.sleep(0.05)


def _output(command: tuple[str, ...]) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
