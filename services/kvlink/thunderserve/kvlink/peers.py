"""Calls to other sidecars' PeerService."""

from __future__ import annotations

from typing import TYPE_CHECKING

import grpc

from thunderserve.api.kvlink.v1 import kvlink_pb2, kvlink_pb2_grpc
from thunderserve.core.errors import TransferError
from thunderserve.core.identity import Role
from thunderserve.kvlink.protocol import PROTOCOL_VERSION
from thunderserve.runtime.errors import error_from_rpc
from thunderserve.runtime.rpc import open_channel
from thunderserve.wire.kvlink import layout_to_proto, rates_to_proto

if TYPE_CHECKING:
    from collections.abc import Mapping

    from thunderserve.core.kv import KvLayout
    from thunderserve.core.request import WireMode
    from thunderserve.runtime.identity import Credentials

__all__ = ["Peers"]

_CALL_TIMEOUT_S = 5.0
_MAX_CHANNELS = 64


class Peers:
    """One channel for each peer; the longest unused one makes room for a new one.

    Args:
        advertised_address: Where peers reach this sidecar.
        credentials: This sidecar's.
    """

    def __init__(self, advertised_address: str, credentials: Credentials) -> None:
        self._address = advertised_address
        self._credentials = credentials
        self._version = credentials.version
        self._channels: dict[str, grpc.aio.Channel] = {}

    async def reserve(
        self,
        peer: str,
        room: int,
        layout: KvLayout,
        page_count: int,
        decode_rates: Mapping[WireMode, float],
    ) -> None:
        """Ask the prefill side's sidecar for a room.

        Args:
            peer: `host:port` of that sidecar.
            room: The room.
            layout: Of the engine here.
            page_count: Pages of the room.
            decode_rates: How fast this host unpacks each wire mode, 16-bit bytes per second.

        Raises:
            TransferError: It does not answer.
            ThunderServeError: What it answered instead.
        """
        request = kvlink_pb2.ReserveTransferRequest(
            protocol_version=PROTOCOL_VERSION,
            room=room,
            layout=layout_to_proto(layout),
            page_count=page_count,
            peer_address=self._address,
            decode_rates=rates_to_proto(decode_rates),
        )
        try:
            stub = await self._stub(peer)
            await stub.ReserveTransfer(request, timeout=_CALL_TIMEOUT_S)
        except grpc.aio.AioRpcError as error:
            raise TransferError(f"sidecar {peer}: {error_from_rpc(error)}") from error

    async def abort(self, peer: str, room: int, reason: str) -> None:
        """Tell a peer that a room is lost; it finds out by itself when it cannot be told."""
        request = kvlink_pb2.AbortTransferRequest(room=room, reason=reason)
        try:
            stub = await self._stub(peer)
            await stub.AbortTransfer(request, timeout=_CALL_TIMEOUT_S)
        except grpc.aio.AioRpcError as error:
            raise TransferError(f"sidecar {peer}: {error_from_rpc(error)}") from error

    async def close(self) -> None:
        """Close all channels."""
        for channel in self._channels.values():
            await channel.close()
        self._channels.clear()

    async def _stub(self, peer: str) -> kvlink_pb2_grpc.PeerServiceAsyncStub:
        await self._drop_outdated()
        channel = self._channels.pop(peer, None) or self._open(peer)
        self._channels[peer] = channel  # the last place is the most recently used
        if len(self._channels) > _MAX_CHANNELS:
            oldest = next(iter(self._channels))
            await self._channels.pop(oldest).close()
        return kvlink_pb2_grpc.PeerServiceStub(channel)

    def _open(self, peer: str) -> grpc.aio.Channel:
        credentials = self._credentials
        return open_channel(
            peer,
            credentials.channel_credentials(),
            ssl_target_name_override=credentials.server_name(Role.KVLINK),
        )

    async def _drop_outdated(self) -> None:
        """A channel that connects again would do so with the certificate it was opened with."""
        self._credentials.refresh()
        if self._version == self._credentials.version:
            return
        self._version = self._credentials.version
        channels, self._channels = self._channels, {}
        for channel in channels.values():
            await channel.close(_CALL_TIMEOUT_S)
