"""Events of the control plane <-> protobuf."""

from __future__ import annotations

from thunderserve.api.control.v1 import control_pb2
from thunderserve.core.events import Event
from thunderserve.wire.enums import event_kind_from_proto, event_kind_to_proto
from thunderserve.wire.plans import timestamp_from_unix_s, unix_s_from_timestamp

__all__ = ["event_from_proto", "event_to_proto"]


def event_to_proto(event: Event) -> control_pb2.Event:
    """One write."""
    return control_pb2.Event(
        number=event.number,
        create_time=timestamp_from_unix_s(event.unix_s),
        kind=event_kind_to_proto(event.kind),
        actor=event.actor,
        subject=event.subject,
        detail=event.detail,
    )


def event_from_proto(message: control_pb2.Event) -> Event:
    """One write."""
    return Event(
        kind=event_kind_from_proto(message.kind),
        subject=message.subject,
        detail=message.detail,
        actor=message.actor,
        number=message.number,
        unix_s=unix_s_from_timestamp(message.create_time),
    )
