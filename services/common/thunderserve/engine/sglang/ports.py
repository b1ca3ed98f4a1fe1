"""Ports on the loopback interface for what SGLang binds."""

from __future__ import annotations

import socket

from thunderserve.engine.sglang.options import LOOPBACK

__all__ = ["free_ports"]


def free_ports(count: int) -> list[int]:
    """Distinct loopback ports that nobody listens on now."""
    sockets = [socket.socket(socket.AF_INET, socket.SOCK_STREAM) for _ in range(count)]
    try:
        for probe in sockets:
            probe.bind((LOOPBACK, 0))
        return [int(probe.getsockname()[1]) for probe in sockets]
    finally:
        for probe in sockets:
            probe.close()
