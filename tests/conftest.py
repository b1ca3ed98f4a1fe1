"""Fixtures that several areas need: free ports, a real etcd, waiting for conditions."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from etcd_server import EtcdServer, free_port

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


@pytest.fixture(name="free_port")
def free_port_function() -> Callable[[], int]:
    """Gives a free port of 127.0.0.1 at every call."""
    return free_port


@pytest.fixture(scope="session")
def etcd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EtcdServer]:
    """One etcd for all tests; use keys of your own, or `own_etcd` to stop it."""
    server = EtcdServer(tmp_path_factory.mktemp("etcd"))
    server.start()
    yield server
    server.stop()


@pytest.fixture
def own_etcd(tmp_path: Path) -> Iterator[EtcdServer]:
    """An etcd that the test may stop and start."""
    server = EtcdServer(tmp_path)
    server.start()
    yield server
    server.stop()


@pytest.fixture
def until() -> Callable[[Callable[[], bool]], object]:
    """Waits for a condition; a test that waits too long fails."""

    async def wait_until(condition: Callable[[], bool], timeout_s: float = 5.0) -> None:
        async with asyncio.timeout(timeout_s):
            while not condition():  # noqa: ASYNC110 - any condition of any object
                await asyncio.sleep(0.005)

    return wait_until
