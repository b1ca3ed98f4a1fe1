"""A worker's own sidecar, as the engines' `KvLink`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import grpc

from thunderserve.api.kvlink.v1 import kvlink_pb2, kvlink_pb2_grpc
from thunderserve.core.errors import TransferError
from thunderserve.runtime.errors import error_from_rpc
from thunderserve.runtime.rpc import open_channel
from thunderserve.wire.enums import wire_mode_to_proto
from thunderserve.wire.links import measurement_from_proto
from thunderserve.wire.requests import transfer_report_from_proto

if TYPE_CHECKING:
    from thunderserve.core.links import LinkMeasurement
    from thunderserve.core.request import TransferReport, WireMode

__all__ = ["LocalClient"]

_ANNOUNCE_TIMEOUT_S = 5.0
_PROBE_TIMEOUT_S = 30.0  # longer than the sidecar takes to give up


class LocalClient:
    """Implements `thunderserve.engine.engine.KvLink` over LocalService.

    Args:
        address: `unix:/path`, the sidecar's `local_address`.
        report_timeout_s: Longer than the sidecar's `transfer_timeout_s`, which ends every room.
    """

    def __init__(self, address: str, report_timeout_s: float = 180.0) -> None:
        self._channel = open_channel(address)
        self._stub = kvlink_pb2_grpc.LocalServiceStub(self._channel)
        self._report_timeout_s = report_timeout_s

    async def announce(self, room: int, wire_mode: WireMode) -> None:
        """Choose how a room's KV will travel; call it before the engine sees the request.

        Raises:
            UnavailableError: The sidecar is away.
            OverloadedError: It has too many transfers open.
        """
        request = kvlink_pb2.AnnounceTransferRequest(
            room=room, wire_mode=wire_mode_to_proto(wire_mode)
        )
        try:
            await self._stub.AnnounceTransfer(request, timeout=_ANNOUNCE_TIMEOUT_S)
        except grpc.aio.AioRpcError as error:
            raise error_from_rpc(error) from error

    async def report(self, room: int) -> TransferReport:
        """What the room's transfer took; waits until it has ended.

        Raises:
            TransferError: It was aborted; the message says why.
            NotFoundError: The sidecar never heard of the room.
            UnavailableError: The sidecar is away.
        """
        request = kvlink_pb2.GetTransferRequest(room=room)
        try:
            transfer = await self._stub.GetTransfer(request, timeout=self._report_timeout_s)
        except grpc.aio.AioRpcError as error:
            raise error_from_rpc(error) from error
        if transfer.state != kvlink_pb2.Transfer.STATE_COMMITTED:
            raise TransferError(transfer.failure or f"room {room} was not committed")
        return transfer_report_from_proto(transfer.report)

    async def links(self) -> tuple[LinkMeasurement, ...]:
        """The links from the sidecar to others, as far as they were measured.

        None are told by a sidecar that is away or of a release that measures none.
        """
        try:
            answer = await self._stub.ListLinks(
                kvlink_pb2.ListLinksRequest(), timeout=_ANNOUNCE_TIMEOUT_S
            )
        except grpc.aio.AioRpcError:
            return ()
        return tuple(measurement_from_proto(link) for link in answer.links)

    async def probe(self, peer_address: str) -> LinkMeasurement:
        """Measure the link to the sidecar at `host:port` now, with at most 8 MiB.

        Raises:
            PreconditionError: A transfer needs the link, or another one is being measured.
            UnavailableError: The peer, or this sidecar, cannot be reached.
        """
        request = kvlink_pb2.ProbeLinkRequest(peer_address=peer_address)
        try:
            answer = await self._stub.ProbeLink(request, timeout=_PROBE_TIMEOUT_S)
        except grpc.aio.AioRpcError as error:
            raise error_from_rpc(error) from error
        return measurement_from_proto(answer)

    async def close(self) -> None:
        """Close the channel."""
        await self._channel.close()
