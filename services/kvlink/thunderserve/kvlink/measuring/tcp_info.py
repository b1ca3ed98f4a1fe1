"""What Linux knows of a TCP connection: `struct tcp_info` of linux/tcp.h."""

from __future__ import annotations

import socket
import struct
from typing import NamedTuple

__all__ = ["TcpInfo", "read_tcp_info"]

_APP_LIMITED = 1  # the lowest bit of the eighth byte
_UNKNOWN_RTT_US = 0xFFFFFFFF
_BYTES = 216
_FLAGS = struct.Struct("7xB")
_ACKED = struct.Struct("=120xQ")
_MIN_RTT = struct.Struct("=148xI")
_TIMES = struct.Struct("=168xQQ")
_SENT = struct.Struct("=200xQQ")


class TcpInfo(NamedTuple):
    """Counters since the connection began.

    Attributes:
        busy_s: With bytes under way.
        blocked_s: Of that, because the peer had no room.
        short_of_data: True when less was to be sent than could have been, lately.
    """

    acked_bytes: int
    sent_bytes: int
    repeated_bytes: int
    busy_s: float
    blocked_s: float
    rtt_s: float
    short_of_data: bool


def read_tcp_info(connection: socket.socket) -> TcpInfo | None:
    """None where it is not TCP, has ended, or the kernel is older than 4.19."""
    try:
        data = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _BYTES)
    except (OSError, ValueError):  # uvloop's closed sockets raise the latter
        return None
    if len(data) < _BYTES:
        return None
    (rtt_us,) = _MIN_RTT.unpack_from(data)
    busy_us, blocked_us = _TIMES.unpack_from(data)
    sent, repeated = _SENT.unpack_from(data)
    return TcpInfo(
        acked_bytes=_ACKED.unpack_from(data)[0],
        sent_bytes=sent,
        repeated_bytes=repeated,
        busy_s=busy_us / 1e6,
        blocked_s=blocked_us / 1e6,
        rtt_s=0.0 if rtt_us == _UNKNOWN_RTT_US else rtt_us / 1e6,
        short_of_data=bool(_FLAGS.unpack_from(data)[0] & _APP_LIMITED),
    )
