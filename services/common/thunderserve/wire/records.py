"""Nouns as JSON values, for what is kept in the store: legible there, and the API's own names."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from google.protobuf import json_format

from thunderserve.api.control.v1 import control_pb2
from thunderserve.api.types.v1 import types_pb2
from thunderserve.wire.events import event_from_proto, event_to_proto
from thunderserve.wire.fleet import (
    flip_from_proto,
    flip_to_proto,
    heartbeat_from_proto,
    heartbeat_to_proto,
    hello_from_proto,
    hello_to_proto,
    worker_from_proto,
    worker_to_proto,
)
from thunderserve.wire.plans import plan_from_proto, plan_to_proto

if TYPE_CHECKING:
    from thunderserve.core.events import Event
    from thunderserve.core.fleet import Flip, Heartbeat, Member, Worker
    from thunderserve.core.plan import Plan

__all__ = [
    "Record",
    "event_from_record",
    "event_to_record",
    "flip_from_record",
    "flip_to_record",
    "heartbeat_from_record",
    "heartbeat_to_record",
    "member_from_record",
    "member_to_record",
    "plan_from_record",
    "plan_to_record",
    "worker_from_record",
    "worker_to_record",
]

Record = dict[str, Any]
"""What `json.dumps` takes; fields that a later version adds are skipped on reading."""


def plan_to_record(plan: Plan) -> Record:
    """A plan, whole."""
    return _to_record(plan_to_proto(plan))


def plan_from_record(record: Record) -> Plan:
    """Raises InvalidArgumentError for anything that `Plan` refuses."""
    return plan_from_proto(_parsed(record, types_pb2.Plan()))


def worker_to_record(worker: Worker) -> Record:
    """A worker process."""
    return _to_record(worker_to_proto(worker))


def worker_from_record(record: Record) -> Worker:
    """Raises InvalidArgumentError for anything that `Worker` refuses."""
    return worker_from_proto(_parsed(record, control_pb2.Worker()))


def member_to_record(member: Member) -> Record:
    """A worker or a router."""
    return _to_record(hello_to_proto(member))


def member_from_record(record: Record) -> Member:
    """Raises InvalidArgumentError for a record of nobody."""
    return hello_from_proto(_parsed(record, control_pb2.Hello()))


def heartbeat_to_record(heartbeat: Heartbeat) -> Record:
    """A heartbeat."""
    return _to_record(heartbeat_to_proto(heartbeat))


def heartbeat_from_record(record: Record) -> Heartbeat:
    """A heartbeat."""
    return heartbeat_from_proto(_parsed(record, control_pb2.Heartbeat()))


def flip_to_record(flip: Flip) -> Record:
    """One change of phase."""
    return _to_record(flip_to_proto(flip))


def flip_from_record(record: Record) -> Flip:
    """One change of phase."""
    return flip_from_proto(_parsed(record, control_pb2.Flip()))


def event_to_record(event: Event) -> Record:
    """One write."""
    return _to_record(event_to_proto(event))


def event_from_record(record: Record) -> Event:
    """One write."""
    return event_from_proto(_parsed(record, control_pb2.Event()))


_Message = (
    types_pb2.Plan
    | control_pb2.Worker
    | control_pb2.Hello
    | control_pb2.Heartbeat
    | control_pb2.Flip
    | control_pb2.Event
)


def _to_record(message: _Message) -> Record:
    record: Record = json_format.MessageToDict(message, preserving_proto_field_name=True)
    return record


def _parsed(record: Record, message: Any) -> Any:
    return json_format.ParseDict(record, message, ignore_unknown_fields=True)
