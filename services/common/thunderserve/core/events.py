"""What the control plane wrote, when, and for whom."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

__all__ = ["CONTROL_ACTOR", "Event", "EventKind"]

CONTROL_ACTOR = "control"
"""Who acts where nobody asked: the control plane itself."""


class EventKind(StrEnum):
    """What was written."""

    PLAN = "PLAN"
    FLIP = "FLIP"
    RESTORE = "RESTORE"


@dataclass(frozen=True, slots=True)
class Event:
    """One write of the control plane.

    Attributes:
        number: Rises by one from event to event; 0 before it is recorded.
        unix_s: Seconds since 1970; 0 before it is recorded.
        actor: A certificate's identity, the name that a caller gave, or `CONTROL_ACTOR`.
        subject: The plan's epoch or the group's id.
        detail: One line, for people.
    """

    kind: EventKind
    subject: str
    detail: str
    actor: str = CONTROL_ACTOR
    number: int = 0
    unix_s: float = 0.0

    @property
    def asked_for(self) -> bool:
        """True when somebody asked for it: `audit` shows these."""
        return self.actor != CONTROL_ACTOR
