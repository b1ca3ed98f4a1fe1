"""The fleet of deploy/compose/local.yaml, built, started, and removed with its volumes."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from etcd_server import free_port

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

FOLDER = Path(__file__).parents[2] / "deploy" / "compose"
IMAGE = "thunderserve:compose-test"


@dataclass(frozen=True, slots=True)
class ComposedFleet:
    """A running fleet.

    Attributes:
        http: `host:port` of the router's published HTTP port.
        control: `host:port` of the control plane's.
    """

    http: str
    control: str
    command: tuple[str, ...]
    environment: Mapping[str, str]

    def run(self, *arguments: str) -> str:
        """What one Compose command prints; raises when it fails."""
        done = subprocess.run(
            [*self.command, *arguments], env=self.environment, stdout=subprocess.PIPE, check=True
        )
        return done.stdout.decode()


@pytest.fixture(scope="session")
def fleet(docker_compose: tuple[str, ...]) -> Iterator[ComposedFleet]:
    """Built by deploy/compose/build.sh; up when every container is healthy."""
    subprocess.run([FOLDER / "build.sh", IMAGE], check=True)
    http, control, router = free_port(), free_port(), free_port()
    ports = {"HTTP_PORT": http, "CONTROL_PORT": control, "ROUTER_PORT": router}
    environment = os.environ | {name: str(port) for name, port in ports.items()}
    environment["THUNDERSERVE_IMAGE"] = IMAGE
    command = (*docker_compose, "-p", "thunderserve-test", "-f", str(FOLDER / "local.yaml"))
    composed = ComposedFleet(f"127.0.0.1:{http}", f"127.0.0.1:{control}", command, environment)
    try:
        _timed("up", lambda: composed.run("up", "--detach", "--no-build"))
        yield composed
    finally:
        _timed("down", lambda: composed.run("down", "--volumes", "--timeout", "20"))
        _works("docker", "image", "rm", IMAGE)


@pytest.fixture(scope="session")
def docker_compose() -> tuple[str, ...]:
    """The Compose that is installed: a plugin of docker, or a program of its own."""
    commands = (("docker", "compose"), ("docker-compose",))
    for command in commands:
        if _works(*command, "version"):
            if _works("docker", "info"):
                return command
            pytest.skip("no Docker daemon answers; `make compose-test` starts one where it may")
    pytest.skip("neither `docker compose` nor `docker-compose` is installed")


def _works(*command: str) -> bool:
    try:
        return subprocess.run(command, check=False, capture_output=True).returncode == 0
    except FileNotFoundError:
        return False


def _timed(step: str, work: Callable[[], object]) -> None:
    start = time.monotonic()
    work()
    sys.stdout.write(f"compose: {step:<12} {time.monotonic() - start:3.0f} s\n")
