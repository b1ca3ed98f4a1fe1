"""PeerService, for other sidecars, and LocalService, for this sidecar's worker."""

from __future__ import annotations

from typing import TYPE_CHECKING

from thunderserve.api.kvlink.v1 import kvlink_pb2, kvlink_pb2_grpc
from thunderserve.core.errors import InvalidArgumentError, PreconditionError
from thunderserve.kvlink.protocol import PROTOCOL_VERSION, TransferState
from thunderserve.kvlink.sending import Reservation
from thunderserve.wire.enums import wire_mode_from_proto
from thunderserve.wire.kvlink import layout_from_proto, layout_to_proto, rates_from_proto
from thunderserve.wire.links import measurement_to_proto
from thunderserve.wire.requests import transfer_report_to_proto

if TYPE_CHECKING:
    from typing import Any

    import grpc

    from thunderserve.api.types.v1 import types_pb2
    from thunderserve.kvlink.exchange import Exchange
    from thunderserve.kvlink.prober import Prober
    from thunderserve.kvlink.sending import Sending

    _Context = grpc.aio.ServicerContext[Any, Any]

__all__ = ["LocalServicer", "PeerServicer"]

_MOST_PORT, _MOST_HOST_CHARS = 65535, 255
# A peer's words are kept with the room and told to the engine, whose messages are bounded.
_MOST_REASON_CHARS = 500

_STATES = {
    TransferState.RESERVED: kvlink_pb2.Transfer.STATE_RESERVED,
    TransferState.SENDING: kvlink_pb2.Transfer.STATE_SENDING,
    TransferState.COMMITTED: kvlink_pb2.Transfer.STATE_COMMITTED,
    TransferState.ABORTED: kvlink_pb2.Transfer.STATE_ABORTED,
}


class PeerServicer(kvlink_pb2_grpc.PeerServiceServicer):
    """What sidecars ask of each other."""

    def __init__(self, exchange: Exchange, sending: Sending) -> None:
        self._exchange = exchange
        self._sending = sending

    async def GetEndpoint(  # noqa: N802 - gRPC's name
        self, request: kvlink_pb2.GetEndpointRequest, context: _Context
    ) -> kvlink_pb2.Endpoint:
        """The engine behind this sidecar."""
        del context
        _check_version(request.protocol_version)
        return kvlink_pb2.Endpoint(
            protocol_version=PROTOCOL_VERSION,
            layout=layout_to_proto(self._exchange.engine.layout),
        )

    async def ReserveTransfer(  # noqa: N802 - gRPC's name
        self, request: kvlink_pb2.ReserveTransferRequest, context: _Context
    ) -> kvlink_pb2.ReserveTransferResponse:
        """The peer waits for a room."""
        del context
        _check_version(request.protocol_version)
        wanted = Reservation(
            room=_checked_room(request.room),
            layout=layout_from_proto(request.layout),
            page_count=request.page_count,
            peer_address=_checked_address(request.peer_address),
            decode_rates=rates_from_proto(request.decode_rates),
        )
        await self._sending.reserve(wanted)
        return kvlink_pb2.ReserveTransferResponse()

    async def AbortTransfer(  # noqa: N802 - gRPC's name
        self, request: kvlink_pb2.AbortTransferRequest, context: _Context
    ) -> kvlink_pb2.AbortTransferResponse:
        """The peer has ended a room."""
        del context
        reason = f"aborted by the other side: {request.reason[:_MOST_REASON_CHARS]}"
        self._exchange.abort_by_peer(_checked_room(request.room), reason)
        return kvlink_pb2.AbortTransferResponse()


class LocalServicer(kvlink_pb2_grpc.LocalServiceServicer):
    """What a worker asks of its own sidecar."""

    def __init__(self, exchange: Exchange, prober: Prober) -> None:
        self._exchange = exchange
        self._prober = prober

    async def AnnounceTransfer(  # noqa: N802 - gRPC's name
        self, request: kvlink_pb2.AnnounceTransferRequest, context: _Context
    ) -> kvlink_pb2.AnnounceTransferResponse:
        """Choose how a room travels."""
        del context
        mode = wire_mode_from_proto(request.wire_mode)
        self._exchange.announce(_checked_room(request.room), mode)
        return kvlink_pb2.AnnounceTransferResponse()

    async def GetTransfer(  # noqa: N802 - gRPC's name
        self, request: kvlink_pb2.GetTransferRequest, context: _Context
    ) -> kvlink_pb2.Transfer:
        """Wait until a room has ended, and say how."""
        del context
        room = await self._exchange.wait_ended(_checked_room(request.room))
        return kvlink_pb2.Transfer(
            room=room.number,
            state=_STATES[room.state],
            report=transfer_report_to_proto(room.report),
            failure=room.failure,
        )

    async def ListLinks(  # noqa: N802 - gRPC's name
        self, request: kvlink_pb2.ListLinksRequest, context: _Context
    ) -> kvlink_pb2.ListLinksResponse:
        """Measured links."""
        del request, context
        links = map(measurement_to_proto, self._exchange.modes.measurements())
        return kvlink_pb2.ListLinksResponse(links=links)

    async def ProbeLink(  # noqa: N802 - gRPC's name
        self, request: kvlink_pb2.ProbeLinkRequest, context: _Context
    ) -> types_pb2.LinkMeasurement:
        """Measure a link now."""
        del context
        peer = _checked_address(request.peer_address)
        await self._prober.probe(peer)
        return measurement_to_proto(self._exchange.modes.measurement(peer))


def _checked_address(address: str) -> str:
    """Frames and aborts of the room go there."""
    host, _, port = address.rpartition(":")
    is_port = port.isascii() and port.isdecimal() and 0 < int(port[:6]) <= _MOST_PORT
    is_host = 0 < len(host) <= _MOST_HOST_CHARS and host.isascii() and host.isprintable()
    if not is_host or not is_port or "/" in host:
        shown = address[:_MOST_HOST_CHARS]
        raise InvalidArgumentError(f"peer_address {shown!r} is not host:port", param="peer_address")
    return address


def _checked_room(room: int) -> int:
    if not 0 < room < 2**63:
        raise InvalidArgumentError(f"room {room} is not in [1, 2**63)", param="room")
    return room


def _check_version(version: int) -> None:
    if version != PROTOCOL_VERSION:
        raise PreconditionError(
            f"the peer speaks kvlink protocol {version}, this sidecar {PROTOCOL_VERSION}; "
            "run the same release on both hosts"
        )
