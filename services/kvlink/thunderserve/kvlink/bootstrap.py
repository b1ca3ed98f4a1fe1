"""Builds the sidecar and serves until it is told to stop."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from typing import TYPE_CHECKING

from thunderserve.api.kvlink.v1 import kvlink_pb2_grpc
from thunderserve.core.identity import Role
from thunderserve.kvlink.codec_threads import CodecThreads
from thunderserve.kvlink.engine_server import EngineServer, SlotLimits
from thunderserve.kvlink.exchange import Exchange
from thunderserve.kvlink.links import BULK_PROTOCOL, Links
from thunderserve.kvlink.measuring import CodecSpeeds, LinkMeter, WireModes
from thunderserve.kvlink.peers import Peers
from thunderserve.kvlink.prober import Prober
from thunderserve.kvlink.receiving import Receiving
from thunderserve.kvlink.rooms import Rooms
from thunderserve.kvlink.sending import Sending
from thunderserve.kvlink.servicer import LocalServicer, PeerServicer
from thunderserve.kvlink.transport import (
    BufferPool,
    Listener,
    TlsPort,
    add_frames_to_server,
    splice,
)
from thunderserve.runtime.identity import Credentials
from thunderserve.runtime.rpc import serve_rpc, stop_server

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import grpc

    from thunderserve.kvlink.config import KvlinkConfig

__all__ = ["serve"]

_log = logging.getLogger(__name__)
GRPC_PROTOCOL = "h2"  # ALPN's name for HTTP/2


async def serve(config: KvlinkConfig, stopping: asyncio.Event) -> None:
    """Serve engine, worker and peers until `stopping` is set.

    Raises:
        UnavailableError: An address cannot be bound.
    """
    async with contextlib.AsyncExitStack() as stack:
        credentials = Credentials(config.identity)
        exchange = _exchange(config, credentials)
        stack.callback(exchange.modes.meter.close)
        links = Links(credentials, config.bulk, time.monotonic)
        stack.push_async_callback(exchange.peers.close)
        stack.callback(links.close)
        stack.push_async_callback(exchange.close)
        threads = CodecThreads()
        stack.callback(threads.close)
        sending = Sending(exchange, links, threads, config.max_frame_bytes)
        buffers = BufferPool(config.buffer_count, config.max_frame_bytes)
        receiving = Receiving(exchange, threads, buffers, config.stall_timeout_s)
        limits = SlotLimits(config.buffer_count, config.max_frame_bytes)
        engines = EngineServer(exchange, sending, receiving, limits)

        engine_socket = Listener(engines.serve)
        stack.push_async_callback(engine_socket.close)
        await engine_socket.listen_unix(config.engine_socket)

        peers = PeerServicer(exchange, sending)
        await _serve_peers(stack, config, credentials, peers, receiving)
        meter = exchange.modes.meter
        prober = Prober(links, meter, exchange.has_open_room, config.probe_after_s)
        # Last: who can ask it finds all of it ready.
        await _serve_worker(stack, config, LocalServicer(exchange, prober))
        for work in (exchange.watch_overdue(), prober.run()):
            stack.callback(asyncio.create_task(work).cancel)
        _log.info("ready: %s at %s", credentials.identity, config.peer_address)
        await stopping.wait()


async def _serve_peers(
    stack: contextlib.AsyncExitStack,
    config: KvlinkConfig,
    credentials: Credentials,
    servicer: PeerServicer,
    receiving: Receiving,
) -> None:
    def add(server: grpc.aio.Server) -> None:
        kvlink_pb2_grpc.add_PeerServiceServicer_to_server(servicer, server)
        add_frames_to_server(server, receiving.serve)

    await _serve_on(stack, config.peer_socket, add)
    handlers = {
        BULK_PROTOCOL: receiving.serve,
        GRPC_PROTOCOL: lambda stream: splice(stream, config.peer_socket),
    }
    port = TlsPort(credentials, (Role.KVLINK,), handlers)
    stack.push_async_callback(port.close)
    await port.listen(config.address)


async def _serve_worker(
    stack: contextlib.AsyncExitStack, config: KvlinkConfig, servicer: LocalServicer
) -> None:
    def add(server: grpc.aio.Server) -> None:
        kvlink_pb2_grpc.add_LocalServiceServicer_to_server(servicer, server)

    await _serve_on(stack, config.local_socket, add)


async def _serve_on(
    stack: contextlib.AsyncExitStack, path: Path, add: Callable[[grpc.aio.Server], None]
) -> None:
    """A gRPC server on a Unix socket for this user alone."""
    _make_room(path)
    server = await serve_rpc(f"unix:{path}", add)
    _close_to_others(path)
    stack.push_async_callback(stop_server, server, 0.2)


def _make_room(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    path.unlink(missing_ok=True)


def _close_to_others(path: Path) -> None:
    path.chmod(0o600)


def _exchange(config: KvlinkConfig, credentials: Credentials) -> Exchange:
    rooms = Rooms(
        default_mode=config.wire_mode,
        max_rooms=config.max_rooms,
        open_limit_s=config.transfer_timeout_s,
        forget_after_s=config.forget_after_s,
    )
    peers = Peers(config.peer_address, credentials)
    speeds, clock = CodecSpeeds(), time.monotonic
    speeds.measure()
    modes = WireModes(LinkMeter(clock), speeds, coarsest=config.coarsest_mode, clock=clock)
    return Exchange(rooms, peers, modes, clock)
