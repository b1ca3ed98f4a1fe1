"""Two events, and a service that lists them."""

from __future__ import annotations

from typing import Any

from thunderserve.api.control.v1 import control_pb2
from thunderserve.core.events import CONTROL_ACTOR, Event, EventKind
from thunderserve.core.identity import CALLER_KEY
from thunderserve.wire.events import event_to_proto

EVENTS = (
    Event(EventKind.FLIP, "g2", "flip f1: DONE", '"ann@lab"', 8, 1.79e9),
    Event(EventKind.PLAN, "7", "first plan", CONTROL_ACTOR, 7, 1.79e9),
)


class ListsEvents:
    """The part of a fake control plane that lists events; `callers` is who asked for them."""

    callers: tuple[str, ...] = ()

    async def ListEvents(self, request: Any, context: Any) -> Any:
        """Both."""
        del request
        self.callers += (dict(context.invocation_metadata())[CALLER_KEY],)
        return control_pb2.ListEventsResponse(events=[event_to_proto(event) for event in EVENTS])
