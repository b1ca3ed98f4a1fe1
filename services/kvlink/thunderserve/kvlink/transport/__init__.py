"""Sockets: exact reads into the caller's buffers, flow-controlled writes, bounded memory."""

from __future__ import annotations

from thunderserve.kvlink.transport.buffers import BufferPool
from thunderserve.kvlink.transport.listener import Listener
from thunderserve.kvlink.transport.stream import ByteStream, StreamClosedError, open_tcp

__all__ = ["BufferPool", "ByteStream", "Listener", "StreamClosedError", "open_tcp"]
