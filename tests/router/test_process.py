"""The router's process: what it says when it cannot start, and how it ends."""

from __future__ import annotations

import asyncio
import signal
import socket
import subprocess
import sys
from typing import TYPE_CHECKING

import httpx
import pytest

from thunderserve.demo_model import model_path

if TYPE_CHECKING:
    from collections.abc import Callable


def run_router(*overrides: str) -> subprocess.CompletedProcess[str]:
    """A router process that is expected to end by itself."""
    values = {
        "address": "127.0.0.1:0",
        "http_address": "127.0.0.1:0",
        "control_addresses": "127.0.0.1:1",
        "model_name": "demo",
        "model_path": str(model_path()),
    } | dict(override.split("=", 1) for override in overrides)
    arguments = [word for key, value in values.items() for word in ("--set", f"{key}={value}")]
    command = [sys.executable, "-m", "thunderserve.router", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)


@pytest.mark.parametrize(
    ("override", "status", "words"),
    [
        ("max_in_fligth=3", 2, "did you mean 'max_in_flight'?"),
        ("max_in_flight=0", 2, "max_in_flight is 0; it must be positive"),
        ("model_path=/nowhere", 2, "cannot read /nowhere/tokenizer_config.json"),
        ("http_address=nonsense", 2, "http_address is 'nonsense'; it must be host:port"),
        ("control_addresses=", 2, "control_addresses is empty"),
    ],
)
def test_process_says_what_is_wrong_when_its_configuration_is(
    override: str, status: int, words: str
) -> None:
    """One line on stderr, no traceback, and the status of a wrong usage."""
    ended = run_router(override)

    assert ended.returncode == status
    assert words in ended.stderr
    assert "Traceback" not in ended.stderr


def test_process_says_so_when_its_port_is_taken() -> None:
    """It is no configuration error, so the status is another."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        ended = run_router(f"http_address=127.0.0.1:{taken.getsockname()[1]}")

    assert ended.returncode == 1
    assert "cannot listen on 127.0.0.1" in ended.stderr
    assert "Traceback" not in ended.stderr


async def test_process_starts_without_control_and_stops_when_terminated(
    free_port: Callable[[], int],
) -> None:
    """It lives, is not ready, and ends with status 0 and nothing on its ports."""
    http_port = free_port()
    command = [sys.executable, "-m", "thunderserve.router"]
    for key, value in {
        "address": f"127.0.0.1:{free_port()}",
        "http_address": f"127.0.0.1:{http_port}",
        "control_addresses": "127.0.0.1:1",
        "model_name": "demo",
        "model_path": str(model_path()),
    }.items():
        command += ["--set", f"{key}={value}"]
    process = await asyncio.create_subprocess_exec(*command, stderr=subprocess.PIPE)
    try:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{http_port}") as client:
            ready = await _first_answer(client, "/ready")
    finally:
        process.send_signal(signal.SIGTERM)
        _, errors = await asyncio.wait_for(process.communicate(), 10)

    assert ready.status_code == 503
    assert process.returncode == 0
    assert b"Traceback" not in errors
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", http_port)) != 0


async def _first_answer(client: httpx.AsyncClient, path: str) -> httpx.Response:
    async with asyncio.timeout(20):
        while True:
            try:
                return await client.get(path)
            except httpx.ConnectError:
                await asyncio.sleep(0.05)
