"""gRPC servers with health and error translation; channels come from `runtime.channel`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from thunderserve.core.errors import UnavailableError
from thunderserve.runtime.channel import MAX_MESSAGE_BYTES, SHARED_OPTIONS, open_channel
from thunderserve.runtime.interceptors import ErrorInterceptor

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["MAX_MESSAGE_BYTES", "open_channel", "serve_rpc", "stop_server"]


async def serve_rpc(address: str, *register: Callable[[grpc.aio.Server], None]) -> grpc.aio.Server:
    """Start a server with the given services, the health service and error translation.

    Args:
        address: `host:port` or `unix:path` to listen on.
        register: Each adds one service, for example
            `lambda server: add_RouterServiceServicer_to_server(servicer, server)`.

    Raises:
        UnavailableError: The address cannot be bound.
    """
    server = grpc.aio.server(
        interceptors=[ErrorInterceptor()], options=(*SHARED_OPTIONS, ("grpc.so_reuseport", 0))
    )
    for add in register:
        add(server)
    status = health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(status, server)
    try:
        server.add_insecure_port(address)
    except RuntimeError as error:
        raise UnavailableError(f"cannot listen on {address}: is it in use?") from error
    await server.start()
    await status.set("", health_pb2.HealthCheckResponse.SERVING)
    return server


async def stop_server(server: grpc.aio.Server, grace_s: float = 1.0) -> None:
    """Refuse new calls at once and let running ones finish within `grace_s`."""
    await server.stop(grace_s)
