"""Servers: health, and addresses that cannot be had."""

from __future__ import annotations

import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from thunderserve.core.errors import UnavailableError
from thunderserve.runtime.channel import open_channel
from thunderserve.runtime.rpc import serve_rpc, stop_server


async def test_server_is_healthy_when_it_serves(unix_address: str) -> None:
    """SERVING means ready."""
    server = await serve_rpc(unix_address)
    async with open_channel(unix_address) as channel:
        health = health_pb2_grpc.HealthStub(channel)
        answer = await health.Check(health_pb2.HealthCheckRequest())
    assert answer.status == health_pb2.HealthCheckResponse.SERVING
    await stop_server(server, grace_s=0)


async def test_server_is_refused_when_its_address_cannot_be_bound() -> None:
    """The message names the address."""
    with pytest.raises(UnavailableError, match="cannot listen on unix:/nowhere/at/all"):
        await serve_rpc("unix:/nowhere/at/all")
