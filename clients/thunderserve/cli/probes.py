"""Whether a process of the fleet is ready to serve."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass
from typing import Protocol

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from thunderserve.runtime.channel import open_channel

__all__ = ["HealthProbe", "HttpProbe", "PortProbe", "Probe"]

ANSWER_TIMEOUT_S = 2.0


class Probe(Protocol):
    """One way to ask."""

    async def ready(self) -> bool:
        """True when the process serves; never raises because it does not."""


@dataclass(frozen=True, slots=True)
class HealthProbe:
    """The gRPC health service at `address` says SERVING."""

    address: str

    async def ready(self) -> bool:
        """Ask once."""
        async with open_channel(self.address) as channel:
            health = health_pb2_grpc.HealthStub(channel)
            try:
                answer = await health.Check(
                    health_pb2.HealthCheckRequest(), timeout=ANSWER_TIMEOUT_S
                )
            except grpc.aio.AioRpcError:
                return False
        return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)


@dataclass(frozen=True, slots=True)
class HttpProbe:
    """`GET path` at `host:port` answers 200."""

    address: str
    path: str

    async def ready(self) -> bool:
        """Ask once."""
        request = f"GET {self.path} HTTP/1.1\r\nHost: {self.address}\r\nConnection: close\r\n\r\n"
        answer = await _exchange(self.address, request.encode())
        return answer.partition(b" ")[2].startswith(b"200")


@dataclass(frozen=True, slots=True)
class PortProbe:
    """Something at `host:port` answers `request` with `answer`."""

    address: str
    request: bytes
    answer: bytes

    async def ready(self) -> bool:
        """Ask once."""
        return (await _exchange(self.address, self.request)).startswith(self.answer)


async def _exchange(address: str, request: bytes) -> bytes:
    """The first bytes of the answer; nothing when there is none."""
    host, _, port = address.rpartition(":")
    with contextlib.suppress(OSError, TimeoutError):
        async with asyncio.timeout(ANSWER_TIMEOUT_S):
            reader, writer = await asyncio.open_connection(host, int(port))
            try:
                writer.write(request)
                await writer.drain()
                return await reader.read(64)
            finally:
                writer.close()
    return b""
