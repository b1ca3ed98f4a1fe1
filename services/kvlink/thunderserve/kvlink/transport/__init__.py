"""Sockets: exact reads into the caller's buffers, flow-controlled writes, bounded memory."""

from __future__ import annotations

from thunderserve.kvlink.transport.buffers import BufferPool
from thunderserve.kvlink.transport.listener import Listener
from thunderserve.kvlink.transport.rpc_stream import RpcStream, add_frames_to_server, dial_rpc
from thunderserve.kvlink.transport.splice import splice
from thunderserve.kvlink.transport.stream import (
    ByteStream,
    Stream,
    StreamClosedError,
    StreamStalledError,
)
from thunderserve.kvlink.transport.tls import TlsPort, dial

__all__ = [
    "BufferPool",
    "ByteStream",
    "Listener",
    "RpcStream",
    "Stream",
    "StreamClosedError",
    "StreamStalledError",
    "TlsPort",
    "add_frames_to_server",
    "dial",
    "dial_rpc",
    "splice",
]
