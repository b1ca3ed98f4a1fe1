"""The meter on a link that the kernel shapes, in a network namespace of its own."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

SCRIPT = Path(__file__).parents[1] / "support" / "shaped_traffic.py"


@pytest.fixture
def namespace() -> Iterator[str]:
    """A network namespace with a loopback that is up."""
    if os.geteuid() != 0 or not shutil.which("ip") or not shutil.which("tc"):
        pytest.skip("needs root, ip and tc to shape a link")
    name = f"thunderserve-{os.getpid()}"
    _ip("netns", "add", name)
    try:
        _ip("-n", name, "link", "set", "lo", "up")
        yield name
    finally:
        _ip("netns", "del", name)


@pytest.mark.soak  # what it reads depends on what else the machine does
def test_meter_follows_the_rate_when_a_link_is_shaped_anew(namespace: str) -> None:
    """1 Gbit/s within a tenth, gaps or not; 100 Mbit/s is noticed in seconds of traffic."""
    argv = ["ip", "netns", "exec", namespace, sys.executable, str(SCRIPT)]
    ended = subprocess.run(argv, capture_output=True, check=True, text=True, timeout=60)
    fast, slow = (each["bytes_per_s"] for each in json.loads(ended.stdout))
    assert fast == pytest.approx(1.25e8, rel=0.1)
    assert slow == pytest.approx(1.25e7, rel=0.1)


def _ip(*arguments: str) -> None:
    subprocess.run([shutil.which("ip") or "ip", *arguments], check=True)
