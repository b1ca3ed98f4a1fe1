"""A fleet in containers serves through its published ports, and keeps the rest to itself."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

import openai
import pytest

from thunderserve.client import ControlClient

if TYPE_CHECKING:
    from conftest import ComposedFleet

# Building the image is part of the first test.
pytestmark = [pytest.mark.docker, pytest.mark.timeout(1500)]

READY_S = 600.0
WORKERS = ("g0", "g1", "g2")
LISTENING, LOOPBACK = "0A", "7F"


def test_fleet_answers_a_chat_through_the_published_port(fleet: ComposedFleet) -> None:
    """The prompt is prefilled in one container, its KV cache decoded in another."""
    client = openai.OpenAI(base_url=f"http://{fleet.http}/v1", api_key="none", max_retries=0)
    start = time.monotonic()
    answer = _until_ready(client)
    sys.stdout.write(f"compose: {'first answer':<12} {time.monotonic() - start:3.0f} s\n")
    assert answer.choices[0].message.content
    assert answer.usage is not None
    assert answer.usage.completion_tokens > 0
    report = (answer.model_extra or {})["thunderserve"]
    assert report["prefill_group"] == "g0"
    assert report["decode_group"] in ("g1", "g2")
    assert 0 < report["kv_wire_bytes"] < report["kv_raw_bytes"]


async def test_control_knows_every_worker_when_asked_through_its_port(
    fleet: ComposedFleet,
) -> None:
    """The operators' port is published too."""
    async with ControlClient(fleet.control) as control:
        groups = await control.groups()
    assert sorted(group.group.id for group in groups) == list(WORKERS)


@pytest.mark.parametrize("worker", WORKERS)
def test_worker_listens_for_its_own_service_alone(fleet: ComposedFleet, worker: str) -> None:
    """The engine's bootstrap and its other sockets stay on loopback inside the container."""
    assert _open_ports(fleet, worker) == {7100}


@pytest.mark.parametrize("worker", WORKERS)
def test_sidecar_listens_on_one_port(fleet: ComposedFleet, worker: str) -> None:
    """Control and frames share it."""
    assert _open_ports(fleet, f"{worker}-kvlink") == {7400}


def _open_ports(fleet: ComposedFleet, container: str) -> set[int]:
    """Those that something listens on for other hosts."""
    table = fleet.run("exec", "-T", container, "cat", "/proc/net/tcp")
    open_ports = set()
    for row in table.splitlines()[1:]:
        _, local, _, state = row.split()[:4]
        address, port = local.split(":")
        if state == LISTENING and not address.endswith(LOOPBACK):  # little-endian
            open_ports.add(int(port, 16))
    return open_ports


def test_containers_run_without_root(fleet: ComposedFleet) -> None:
    """Nothing in the image needs it."""
    assert fleet.run("exec", "-T", "router", "id", "-u").strip() != "0"


def _until_ready(client: openai.OpenAI) -> openai.types.chat.ChatCompletion:
    deadline = time.monotonic() + READY_S
    while True:
        try:
            return client.chat.completions.create(
                model="thunder-demo-7m",
                messages=[{"role": "user", "content": "What is a list?"}],
                max_tokens=16,
            )
        except (openai.APIConnectionError, openai.InternalServerError):
            if time.monotonic() > deadline:
                raise
            time.sleep(1.0)
