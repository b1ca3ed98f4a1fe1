"""The service as a process: what stops it is one line on stderr and an exit status."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@pytest.fixture
def run() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts control processes, and leaves none behind."""
    started: list[subprocess.Popen[str]] = []

    def start(*settings: str) -> subprocess.Popen[str]:
        sets = [word for setting in settings for word in ("--set", setting)]
        command = [sys.executable, "-m", "thunderserve.control", *sets]
        process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


MODEL = "model_name=thunder-demo-7m"


@pytest.mark.parametrize(
    ("settings", "status", "says"),
    [
        (("adress=127.0.0.1:1", MODEL), 2, "did you mean 'address'?"),
        (
            ("address=127.0.0.1:0", MODEL, "store=etcd", "etcd_endpoints=127.0.0.1:1"),
            1,
            "etcd at 127.0.0.1:1 does not answer",
        ),
    ],
)
def test_control_exits_with_one_line_when_it_cannot_start(
    run: Callable[..., subprocess.Popen[str]], settings: tuple[str, ...], status: int, says: str
) -> None:
    """2 for a wrong configuration, 1 for a world that is not as it should be."""
    process = run(*settings)
    _, stderr = process.communicate(timeout=30)
    assert process.returncode == status
    assert says in stderr
    assert len(stderr.strip().splitlines()) == 1


def test_control_exits_when_its_port_is_taken(run: Callable[..., subprocess.Popen[str]]) -> None:
    """The message names the address."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        process = run(f"address={address}", MODEL)
        _, stderr = process.communicate(timeout=30)
    assert process.returncode == 1
    assert f"cannot listen on {address}" in stderr
    assert "Traceback" not in stderr


def test_control_ends_orderly_when_it_is_told_to(
    run: Callable[..., subprocess.Popen[str]],
) -> None:
    """SIGTERM is no error."""
    process = run("address=127.0.0.1:0", MODEL)
    assert process.stderr is not None
    for line in process.stderr:
        if "control serves fleet" in line:
            break
    os.kill(process.pid, signal.SIGTERM)
    _, stderr = process.communicate(timeout=30)
    assert process.returncode == 0
    assert "Traceback" not in stderr
