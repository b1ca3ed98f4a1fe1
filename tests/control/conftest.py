"""A control replica over real gRPC, on either store."""

from __future__ import annotations

import tempfile
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from control_under_test import ControlUnderTest, running

from thunderserve.control.config import ControlConfig, StoreKind

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from etcd_server import EtcdServer

_fleets = count()


@pytest.fixture
def sockets() -> Iterator[Callable[[str], str]]:
    """Addresses on Unix sockets, by name."""
    with tempfile.TemporaryDirectory(prefix="ts-") as folder:
        yield lambda name: f"unix:{Path(folder)}/{name}"


def _config(address: str, store: StoreKind, etcd: EtcdServer | None) -> ControlConfig:
    return ControlConfig(
        address=address,
        model_name="thunder-demo-7m",
        fleet=f"fleet{next(_fleets)}",
        store=store,
        etcd_endpoints=(etcd.endpoint,) if etcd else (),
        lease_ttl_s=1.0,
        leader_ttl_s=1.0,
        heartbeat_interval_s=0.05,
        expected_workers=2,
    )


@pytest.fixture(params=["memory", pytest.param("etcd", marks=pytest.mark.etcd)])
async def control(
    request: pytest.FixtureRequest, sockets: Callable[[str], str]
) -> AsyncIterator[ControlUnderTest]:
    """A replica on each of the stores; it expects two workers."""
    etcd = request.getfixturevalue("etcd") if request.param == "etcd" else None
    async with running(_config(sockets("control"), StoreKind(request.param), etcd)) as control:
        yield control


@pytest.fixture
async def etcd_control(
    etcd: EtcdServer, sockets: Callable[[str], str]
) -> AsyncIterator[ControlUnderTest]:
    """A replica on etcd; it expects two workers."""
    async with running(_config(sockets("control"), StoreKind.ETCD, etcd)) as control:
        yield control
