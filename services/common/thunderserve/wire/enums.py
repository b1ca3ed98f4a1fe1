"""Enumerations, both ways; an unknown protobuf value is an invalid argument."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from thunderserve.api.control.v1 import control_pb2
from thunderserve.api.types.v1 import types_pb2
from thunderserve.core.errors import InvalidArgumentError
from thunderserve.core.events import EventKind
from thunderserve.core.fleet import FlipStep, GroupState
from thunderserve.core.links import LinkMethod
from thunderserve.core.plan import Phase
from thunderserve.core.request import FinishReason, WireMode

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "event_kind_from_proto",
    "event_kind_to_proto",
    "finish_reason_from_proto",
    "finish_reason_to_proto",
    "flip_step_from_proto",
    "flip_step_to_proto",
    "group_state_from_proto",
    "group_state_to_proto",
    "link_method_from_proto",
    "link_method_to_proto",
    "phase_from_proto",
    "phase_to_proto",
    "wire_mode_from_proto",
    "wire_mode_to_proto",
]

_Ours = TypeVar("_Ours")
_Theirs = TypeVar("_Theirs", bound=int)

_PHASES: dict[Phase, types_pb2.Phase] = {
    Phase.PREFILL: types_pb2.PHASE_PREFILL,
    Phase.DECODE: types_pb2.PHASE_DECODE,
    Phase.COLOCATED: types_pb2.PHASE_COLOCATED,
}
_WIRE_MODES: dict[WireMode, types_pb2.WireMode] = {
    WireMode.DEFAULT: types_pb2.WIRE_MODE_UNSPECIFIED,
    WireMode.RAW16: types_pb2.WIRE_MODE_RAW16,
    WireMode.INT4: types_pb2.WIRE_MODE_INT4,
    WireMode.AUTO: types_pb2.WIRE_MODE_AUTO,
}
_LINK_METHODS: dict[LinkMethod, types_pb2.LinkMeasurement.Method] = {
    LinkMethod.TRAFFIC: types_pb2.LinkMeasurement.METHOD_TRAFFIC,
    LinkMethod.PROBE: types_pb2.LinkMeasurement.METHOD_PROBE,
}
_FINISH_REASONS: dict[FinishReason, types_pb2.FinishReason] = {
    FinishReason.STOP: types_pb2.FINISH_REASON_STOP,
    FinishReason.LENGTH: types_pb2.FINISH_REASON_LENGTH,
    FinishReason.CANCELLED: types_pb2.FINISH_REASON_CANCELLED,
}
_GROUP_STATES: dict[GroupState, control_pb2.GroupStatus.State] = {
    GroupState.SERVING: control_pb2.GroupStatus.STATE_SERVING,
    GroupState.DRAINED: control_pb2.GroupStatus.STATE_DRAINED,
    GroupState.FLIPPING: control_pb2.GroupStatus.STATE_FLIPPING,
    GroupState.LOST: control_pb2.GroupStatus.STATE_LOST,
}
_EVENT_KINDS: dict[EventKind, control_pb2.Event.Kind] = {
    EventKind.PLAN: control_pb2.Event.KIND_PLAN,
    EventKind.FLIP: control_pb2.Event.KIND_FLIP,
    EventKind.RESTORE: control_pb2.Event.KIND_RESTORE,
}
_FLIP_STEPS: dict[FlipStep, control_pb2.Flip.Step] = {
    FlipStep.REROUTING: control_pb2.Flip.STEP_REROUTING,
    FlipStep.DRAINING: control_pb2.Flip.STEP_DRAINING,
    FlipStep.SWITCHING: control_pb2.Flip.STEP_SWITCHING,
    FlipStep.VERIFYING: control_pb2.Flip.STEP_VERIFYING,
    FlipStep.DONE: control_pb2.Flip.STEP_DONE,
    FlipStep.ROLLED_BACK: control_pb2.Flip.STEP_ROLLED_BACK,
}


def phase_to_proto(phase: Phase) -> types_pb2.Phase:
    """Never unspecified."""
    return _PHASES[phase]


def phase_from_proto(value: types_pb2.Phase) -> Phase:
    """Raises InvalidArgumentError for an unspecified or unknown phase."""
    return _ours(_PHASES, value, "phase")


def wire_mode_to_proto(mode: WireMode) -> types_pb2.WireMode:
    """`DEFAULT` is unspecified on the wire."""
    return _WIRE_MODES[mode]


def wire_mode_from_proto(value: types_pb2.WireMode) -> WireMode:
    """Unspecified is `DEFAULT`."""
    return _ours(_WIRE_MODES, value, "wire_mode")


def link_method_to_proto(method: LinkMethod) -> types_pb2.LinkMeasurement.Method:
    """Never unspecified."""
    return _LINK_METHODS[method]


def link_method_from_proto(value: types_pb2.LinkMeasurement.Method) -> LinkMethod:
    """Raises InvalidArgumentError for an unknown method."""
    return _ours(_LINK_METHODS, value, "method")


def finish_reason_to_proto(reason: FinishReason | None) -> types_pb2.FinishReason:
    """None, for a message that is not the last, is unspecified on the wire."""
    return types_pb2.FINISH_REASON_UNSPECIFIED if reason is None else _FINISH_REASONS[reason]


def finish_reason_from_proto(value: types_pb2.FinishReason) -> FinishReason | None:
    """Unspecified is None: more is to come."""
    if value == types_pb2.FINISH_REASON_UNSPECIFIED:
        return None
    return _ours(_FINISH_REASONS, value, "finish_reason")


def group_state_to_proto(state: GroupState) -> control_pb2.GroupStatus.State:
    """Never unspecified."""
    return _GROUP_STATES[state]


def group_state_from_proto(value: control_pb2.GroupStatus.State) -> GroupState:
    """Raises InvalidArgumentError for an unknown state."""
    return _ours(_GROUP_STATES, value, "state")


def flip_step_to_proto(step: FlipStep) -> control_pb2.Flip.Step:
    """Never unspecified."""
    return _FLIP_STEPS[step]


def flip_step_from_proto(value: control_pb2.Flip.Step) -> FlipStep:
    """Raises InvalidArgumentError for an unknown step."""
    return _ours(_FLIP_STEPS, value, "step")


def event_kind_to_proto(kind: EventKind) -> control_pb2.Event.Kind:
    """Never unspecified."""
    return _EVENT_KINDS[kind]


def event_kind_from_proto(value: control_pb2.Event.Kind) -> EventKind:
    """Raises InvalidArgumentError for an unknown kind."""
    return _ours(_EVENT_KINDS, value, "kind")


def _ours(table: Mapping[_Ours, _Theirs], value: _Theirs, param: str) -> _Ours:
    for ours, theirs in table.items():
        if theirs == value:
            return ours
    raise InvalidArgumentError(f"{param} has the unknown value {int(value)}", param=param)
