"""Keys and values of the store, under `/thunderserve/<fleet>/`.

::

    leader                  address of the replica that leads                       (leased)
    members/workers/<id>    who a worker is and what it said last                   (leased)
    members/routers/<id>    the same of a router                                    (leased)
    plan/current            the published plan, its workers, and what is wanted
    plan/history/<epoch>    published plans
    flips/<id>              a flip, step by step
    events/<number>         what was written, when and for whom: the newest 1000
    requests/<id>           epoch of the plan that a request published              (leased)

Every value but the leader's is a JSON object that names its `format`. A replica reads its own
format and the one before; at a newer one it stops, and leaves what is stored as it is.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from thunderserve.control.standing import Intent, Standing
from thunderserve.core.errors import InvalidArgumentError, PreconditionError
from thunderserve.core.fleet import Flip, Heartbeat, Member, PlanView, Worker
from thunderserve.wire import records
from thunderserve.wire.workloads import workload_from_record, workload_to_record

if TYPE_CHECKING:
    from thunderserve.core.events import Event
    from thunderserve.core.plan import Plan

__all__ = [
    "FORMAT",
    "Keys",
    "event_from_value",
    "event_to_value",
    "flip_from_value",
    "flip_to_value",
    "member_from_value",
    "member_to_value",
    "plan_from_value",
    "plan_to_value",
    "request_from_value",
    "request_to_value",
    "standing_from_value",
    "standing_to_value",
]

FORMAT = 2
"""What is written now. Format 1, the first, did not name itself."""

_EPOCH_DIGITS = 20


@dataclass(frozen=True, slots=True)
class Keys:
    """The keys of one fleet."""

    fleet: str

    def _under(self, path: str) -> str:
        return f"/thunderserve/{self.fleet}/{path}"

    @property
    def root(self) -> str:
        """Prefix of everything."""
        return self._under("")

    @property
    def leader(self) -> str:
        """Held by the replica that writes."""
        return self._under("leader")

    @property
    def members(self) -> str:
        """Prefix of all members."""
        return self._under("members/")

    def member(self, member: Member) -> str:
        """A member's key: groups and routers have names of their own."""
        if isinstance(member, Worker):
            return f"{self.members}workers/{member.group_id}"
        return f"{self.members}routers/{member.id}"

    @property
    def current(self) -> str:
        """The plan that stands."""
        return self._under("plan/current")

    @property
    def history(self) -> str:
        """Prefix of all published plans; later epochs sort later."""
        return self._under("plan/history/")

    def plan(self, epoch: int) -> str:
        """A published plan."""
        return f"{self.history}{epoch:0{_EPOCH_DIGITS}d}"

    @property
    def flips(self) -> str:
        """Prefix of all flips."""
        return self._under("flips/")

    def flip(self, flip_id: str) -> str:
        """A flip."""
        return f"{self.flips}{flip_id}"

    @property
    def events(self) -> str:
        """Prefix of all events; later ones sort later."""
        return self._under("events/")

    def event(self, number: int) -> str:
        """An event."""
        return f"{self.events}{number:0{_EPOCH_DIGITS}d}"

    def request(self, request_id: str) -> str:
        """What a request came to."""
        return self._under(f"requests/{request_id}")


def member_to_value(member: Member, heartbeat: Heartbeat) -> bytes:
    """A member and what it said last."""
    return _dumped(
        {
            "hello": records.member_to_record(member),
            "heartbeat": records.heartbeat_to_record(heartbeat),
        }
    )


def member_from_value(value: bytes) -> tuple[Member, Heartbeat]:
    """A member and what it said last."""
    record = _loaded(value)
    return (
        records.member_from_record(record["hello"]),
        records.heartbeat_from_record(record["heartbeat"]),
    )


def standing_to_value(standing: Standing) -> bytes:
    """The plan that stands."""
    intent, applied = standing.intent, standing.intent.applied
    pursued = intent.pursued
    return _dumped(
        {
            "plan": records.plan_to_record(standing.plan),
            "workers": [records.worker_to_record(worker) for worker in standing.view.workers],
            "applied": None if applied is None else records.plan_to_record(applied),
            "drained": sorted(intent.drained),
            "flipping": intent.flipping,
            "pursued": None if pursued is None else records.plan_to_record(pursued),
            "workload": None if intent.workload is None else workload_to_record(intent.workload),
        }
    )


def standing_from_value(value: bytes) -> Standing:
    """The plan that stands."""
    record = _loaded(value)
    applied = record["applied"]
    workers = tuple(records.worker_from_record(worker) for worker in record["workers"])
    intent = Intent(
        applied=None if applied is None else records.plan_from_record(applied),
        drained=frozenset(record["drained"]),
        flipping=record["flipping"],
        pursued=records.plan_from_record(pursued) if (pursued := record.get("pursued")) else None,
        workload=workload_from_record(workload) if (workload := record.get("workload")) else None,
    )
    return Standing(PlanView(records.plan_from_record(record["plan"]), workers), intent)


def plan_to_value(plan: Plan) -> bytes:
    """A published plan."""
    return _dumped(records.plan_to_record(plan))


def plan_from_value(value: bytes) -> Plan:
    """A published plan."""
    return records.plan_from_record(_loaded(value))


def flip_to_value(flip: Flip) -> bytes:
    """A flip."""
    return _dumped(records.flip_to_record(flip))


def flip_from_value(value: bytes) -> Flip:
    """A flip."""
    return records.flip_from_record(_loaded(value))


def event_to_value(event: Event) -> bytes:
    """An event."""
    return _dumped(records.event_to_record(event))


def event_from_value(value: bytes) -> Event:
    """An event."""
    return records.event_from_record(_loaded(value))


def request_to_value(epoch: int) -> bytes:
    """The epoch that a request published."""
    return _dumped({"epoch": epoch})


def request_from_value(value: bytes) -> int:
    """The epoch that a request published; format 1 was the bare number."""
    return int(value) if value.isdigit() else int(_loaded(value)["epoch"])


def _dumped(record: dict[str, Any]) -> bytes:
    return json.dumps({"format": FORMAT, **record}, separators=(",", ":")).encode()


def _loaded(value: bytes) -> dict[str, Any]:
    record = json.loads(value)
    if not isinstance(record, dict):
        raise InvalidArgumentError(f"a record is a JSON object, not {value[:20]!r}")
    written = record.pop("format", 1)
    if not isinstance(written, int) or not FORMAT - 1 <= written <= FORMAT:
        raise PreconditionError(
            f"the store holds records of format {written}, and this control replica reads formats "
            f"{FORMAT - 1} and {FORMAT}; run the version that wrote them. Nothing was changed"
        )
    return record
