"""Measured links."""

from __future__ import annotations

from google.protobuf.duration_pb2 import Duration

from thunderserve.api.control.v1 import control_pb2
from thunderserve.api.types.v1 import types_pb2
from thunderserve.core.links import LinkMeasurement, MeasuredLink
from thunderserve.wire.enums import (
    link_method_from_proto,
    link_method_to_proto,
    wire_mode_from_proto,
    wire_mode_to_proto,
)

__all__ = [
    "link_from_proto",
    "link_to_proto",
    "measurement_from_proto",
    "measurement_to_proto",
]


def measurement_to_proto(link: LinkMeasurement) -> types_pb2.LinkMeasurement:
    """What a sidecar knows of the way to a peer."""
    age = Duration()
    age.FromNanoseconds(round(link.age_s * 1e9))
    return types_pb2.LinkMeasurement(
        peer_address=link.peer_address,
        bytes_per_s=link.bytes_per_s,
        rtt_s=link.rtt_s,
        retransmit_ratio=link.retransmit_ratio,
        age=age,
        method=link_method_to_proto(link.method),
        wire_mode=wire_mode_to_proto(link.wire_mode),
        wire_reason=link.wire_reason,
    )


def measurement_from_proto(message: types_pb2.LinkMeasurement) -> LinkMeasurement:
    """Raises InvalidArgumentError for anything that `LinkMeasurement` refuses."""
    return LinkMeasurement(
        peer_address=message.peer_address,
        bytes_per_s=message.bytes_per_s,
        rtt_s=message.rtt_s,
        retransmit_ratio=message.retransmit_ratio,
        age_s=message.age.ToNanoseconds() / 1e9,
        method=link_method_from_proto(message.method),
        wire_mode=wire_mode_from_proto(message.wire_mode),
        wire_reason=message.wire_reason,
    )


def link_to_proto(link: MeasuredLink) -> control_pb2.Link:
    """A way between two groups."""
    return control_pb2.Link(
        from_group_id=link.from_group,
        to_group_id=link.to_group,
        from_node_id=link.from_node,
        to_node_id=link.to_node,
        measurement=measurement_to_proto(link.measurement),
    )


def link_from_proto(message: control_pb2.Link) -> MeasuredLink:
    """Raises InvalidArgumentError for anything that `LinkMeasurement` refuses."""
    return MeasuredLink(
        from_group=message.from_group_id,
        to_group=message.to_group_id,
        from_node=message.from_node_id,
        to_node=message.to_node_id,
        measurement=measurement_from_proto(message.measurement),
    )
