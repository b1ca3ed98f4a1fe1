"""gRPC channels, and the options that both ends share so that they agree on keep-alive."""

from __future__ import annotations

import grpc

__all__ = ["CHANNEL_OPTIONS", "MAX_MESSAGE_BYTES", "SHARED_OPTIONS", "open_channel"]

MAX_MESSAGE_BYTES = 64 * 1024 * 1024
# NATs drop idle flows after a minute or so; a ping at 30 s keeps them, and the server's minimum
# is below it, so that no client is sent away for too many pings.
SHARED_OPTIONS = (
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
    ("grpc.http2.max_pings_without_data", 0),
)
CHANNEL_OPTIONS = (
    *SHARED_OPTIONS,
    ("grpc.enable_retries", 0),  # retries are the router's decision
    ("grpc.initial_reconnect_backoff_ms", 100),
    # In spite of its name this is also how long one connection attempt may take: it must hold the
    # round trips to a far host and a busy one's scheduling.
    ("grpc.min_reconnect_backoff_ms", 5_000),
    ("grpc.max_reconnect_backoff_ms", 2_000),
    ("grpc.use_local_subchannel_pool", 1),
)


def open_channel(
    address: str, credentials: grpc.ChannelCredentials | None = None, **options: int | str
) -> grpc.aio.Channel:
    """A channel to `host:port` or `unix:path`; it connects at the first call.

    Args:
        address: Whom to connect to.
        credentials: Ours, when the peer asks for some; give `ssl_target_name_override` with them.
        options: gRPC's own, without their prefix, in place of ours.
    """
    chosen: dict[str, int | str] = dict(CHANNEL_OPTIONS)
    chosen |= {f"grpc.{name}": value for name, value in options.items()}
    if credentials is None:
        return grpc.aio.insecure_channel(address, options=tuple(chosen.items()))
    return grpc.aio.secure_channel(address, credentials, options=tuple(chosen.items()))
