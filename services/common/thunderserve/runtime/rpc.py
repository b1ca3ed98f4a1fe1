"""gRPC servers and channels with one set of options, so that both ends agree on keep-alive."""

from __future__ import annotations

from typing import TYPE_CHECKING

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from thunderserve.core.errors import UnavailableError
from thunderserve.runtime.interceptors import ErrorInterceptor

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["MAX_MESSAGE_BYTES", "open_channel", "serve_rpc", "stop_server"]

MAX_MESSAGE_BYTES = 64 * 1024 * 1024
# NATs drop idle flows after a minute or so; a ping at 30 s keeps them, and the server's minimum
# is below it, so that no client is sent away for too many pings.
_OPTIONS = (
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
    ("grpc.http2.max_pings_without_data", 0),
)
_CHANNEL_OPTIONS = (
    *_OPTIONS,
    ("grpc.enable_retries", 0),  # retries are the router's decision
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 2_000),
    ("grpc.use_local_subchannel_pool", 1),
)


def open_channel(address: str) -> grpc.aio.Channel:
    """A channel to `host:port` or `unix:path`; it connects at the first call."""
    return grpc.aio.insecure_channel(address, options=_CHANNEL_OPTIONS)


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
        interceptors=[ErrorInterceptor()], options=(*_OPTIONS, ("grpc.so_reuseport", 0))
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
