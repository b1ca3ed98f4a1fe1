"""What operators' tools ask of the control plane."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self, TypeVar

import grpc
from google.protobuf.duration_pb2 import Duration

from thunderserve.api.control.v1 import control_pb2
from thunderserve.api.control.v1.control_pb2_grpc import ControlServiceStub
from thunderserve.client.failures import failure_of
from thunderserve.core.errors import DeadlineError, InvalidArgumentError, UnavailableError
from thunderserve.core.identity import CALLER_KEY
from thunderserve.runtime.channel import open_channel
from thunderserve.wire.enums import phase_to_proto
from thunderserve.wire.events import event_from_proto
from thunderserve.wire.fleet import flip_from_proto, group_status_from_proto, node_from_proto
from thunderserve.wire.links import link_from_proto
from thunderserve.wire.plans import plan_from_proto, plan_to_proto

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from thunderserve.core.events import Event
    from thunderserve.core.fleet import Flip, GroupStatus, Node
    from thunderserve.core.links import MeasuredLink
    from thunderserve.core.plan import Phase, Plan

__all__ = ["ControlClient", "StoreDump"]

_Item = TypeVar("_Item")


@dataclass(frozen=True, slots=True)
class StoreDump:
    """The lasting records of a fleet's store, by key; `epoch` is its plan's, 0 before the first."""

    fleet: str
    epoch: int
    records: Mapping[str, bytes]


@dataclass(frozen=True, slots=True)
class _Replica:
    peer: str
    channel: grpc.aio.Channel
    stub: Any

    @classmethod
    def open(cls, address: str) -> _Replica:
        channel = open_channel(address)
        return cls(f"the control plane at {address}", channel, ControlServiceStub(channel))


class ControlClient:
    """A connection to the control plane; make it inside a running event loop.

    Any replica does: a follower forwards what changes something. One that is away, or without a
    leader, is passed over for the next; that repeats no change, for requests carry an id or ask
    for a state. Every method raises a `ThunderServeError` whose class says what went wrong.

    Args:
        addresses: `host:port` of one replica, or of several with commas between.
        timeout_s: Deadline of every call.
        caller: Who asks, for the record of changes; a client certificate outweighs it.
    """

    def __init__(self, addresses: str, *, timeout_s: float = 30.0, caller: str = "") -> None:
        self._metadata = ((CALLER_KEY, caller.encode("ascii", "replace").decode()),)
        self._timeout_s = timeout_s
        names = [name.strip() for name in addresses.split(",") if name.strip()]
        if not names:
            raise InvalidArgumentError("no address of the control plane", param="control")
        self._replicas = [_Replica.open(name) for name in names]

    async def nodes(self) -> tuple[Node, ...]:
        """Every host with its GPUs."""
        return await self._list("ListNodes", "nodes", node_from_proto)

    async def groups(self) -> tuple[GroupStatus, ...]:
        """Every group with its worker and state."""
        return await self._list("ListGroups", "groups", group_status_from_proto)

    async def links(self) -> tuple[MeasuredLink, ...]:
        """Measured links between live groups, one for each direction."""
        return await self._list("ListLinks", "links", link_from_proto)

    async def plan(self, epoch: int = 0) -> Plan:
        """The plan of an epoch; 0 is the current one."""
        request = control_pb2.GetPlanRequest(epoch=epoch)
        return plan_from_proto(await self._call("GetPlan", request))

    async def plans(self) -> tuple[Plan, ...]:
        """Published plans, newest first."""
        return await self._list("ListPlans", "plans", plan_from_proto)

    async def compute_plan(
        self,
        *,
        rate_rps: float,
        prompt_tokens: int,
        output_tokens: int,
        seed: int = 0,
        keep_phases: bool = False,
    ) -> Plan:
        """Search for a plan over the live groups; publishes nothing."""
        request = control_pb2.ComputePlanRequest(
            request_rate_rps=rate_rps,
            prompt_token_count=prompt_tokens,
            output_token_count=output_tokens,
            seed=seed,
            keep_phases=keep_phases,
        )
        return plan_from_proto(await self._call("ComputePlan", request))

    async def predict_plan(
        self, plan: Plan, *, rate_rps: float = 0.0, prompt_tokens: int = 0, output_tokens: int = 0
    ) -> Plan:
        """The plan with what the cost model expects of it, on those of its groups that are live.

        Args:
            plan: Any.
            rate_rps: Requests per second; 0 asks for the workload that the fleet is planned for.
            prompt_tokens: Mean prompt length, with a rate.
            output_tokens: Mean answer length, with a rate.
        """
        request = control_pb2.PredictPlanRequest(
            plan=plan_to_proto(plan),
            request_rate_rps=rate_rps,
            prompt_token_count=prompt_tokens,
            output_token_count=output_tokens,
        )
        return plan_from_proto(await self._call("PredictPlan", request))

    async def apply_plan(
        self,
        plan: Plan,
        *,
        expected_epoch: int = 0,
        validate_only: bool = False,
        request_id: str = "",
    ) -> Plan:
        """Publish routes and phases; phase changes are executed as flips.

        Args:
            plan: Its epoch is ignored: the publisher numbers it.
            expected_epoch: Apply only if this is the current epoch; 0 applies to any.
            validate_only: Check everything and publish nothing.
            request_id: Repeating one returns the first call's plan.
        """
        request = control_pb2.ApplyPlanRequest(
            plan=plan_to_proto(plan),
            expected_epoch=expected_epoch,
            validate_only=validate_only,
            request_id=request_id,
        )
        return plan_from_proto(await self._call("ApplyPlan", request))

    async def flip(
        self,
        group_id: str,
        phase: Phase,
        *,
        drain_timeout_s: float = 30.0,
        validate_only: bool = False,
        request_id: str = "",
    ) -> Flip:
        """Change a group's phase; returns when the flip has ended, done or rolled back."""
        request = control_pb2.FlipGroupRequest(
            group_id=group_id,
            phase=phase_to_proto(phase),
            drain_timeout=_duration(drain_timeout_s),
            validate_only=validate_only,
            request_id=request_id,
        )
        return flip_from_proto(await self._call("FlipGroup", request))

    async def flips(self) -> tuple[Flip, ...]:
        """Recorded flips."""
        return await self._list("ListFlips", "flips", flip_from_proto)

    async def events(self) -> tuple[Event, ...]:
        """What was written, when and for whom, newest first."""
        return await self._list("ListEvents", "events", event_from_proto)

    async def drain(
        self, group_id: str, *, validate_only: bool = False, request_id: str = ""
    ) -> GroupStatus:
        """Take a group out of the routes."""
        request = control_pb2.DrainGroupRequest(
            group_id=group_id, request_id=request_id, validate_only=validate_only
        )
        return group_status_from_proto(await self._call("DrainGroup", request))

    async def undrain(
        self, group_id: str, *, validate_only: bool = False, request_id: str = ""
    ) -> GroupStatus:
        """Put a drained group back."""
        request = control_pb2.UndrainGroupRequest(
            group_id=group_id, request_id=request_id, validate_only=validate_only
        )
        return group_status_from_proto(await self._call("UndrainGroup", request))

    async def dump_store(self) -> StoreDump:
        """What the store holds of the fleet, but for leases."""
        response = await self._call("DumpStore", control_pb2.DumpStoreRequest())
        records = {record.key: record.value for record in response.records}
        return StoreDump(response.fleet, response.epoch, records)

    async def restore_store(
        self, dump: StoreDump, *, allow_older: bool = False, validate_only: bool = False
    ) -> tuple[int, int]:
        """Make a dump's plan the current one, under a new epoch.

        Args:
            dump: As `dump_store` gave it.
            allow_older: Restore also where the current plan is newer than the dump's.
            validate_only: Check everything and write nothing.

        Returns:
            The new epoch, 0 if nothing was written, and the number of records.
        """
        request = control_pb2.RestoreStoreRequest(
            records=[control_pb2.StoreRecord(key=k, value=v) for k, v in dump.records.items()],
            allow_older=allow_older,
            validate_only=validate_only,
        )
        response = await self._call("RestoreStore", request)
        return response.epoch, response.record_count

    async def close(self) -> None:
        """Close the connection."""
        for replica in self._replicas:
            await replica.channel.close(None)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    async def _call(self, method: str, request: Any) -> Any:
        """Ask the replicas in turn; whoever answered last is asked first.

        One that froze uses up the whole deadline, so the next call begins with another.
        """
        for _ in self._replicas[1:]:
            try:
                return await self._ask(self._replicas[0], method, request)
            except UnavailableError:
                self._replicas.append(self._replicas.pop(0))
            except DeadlineError:
                self._replicas.append(self._replicas.pop(0))
                raise
        return await self._ask(self._replicas[0], method, request)

    async def _ask(self, replica: _Replica, method: str, request: Any) -> Any:
        try:
            return await getattr(replica.stub, method)(
                request, timeout=self._timeout_s, metadata=self._metadata
            )
        except grpc.aio.AioRpcError as error:
            raise failure_of(error, replica.peer, self._timeout_s) from None

    async def _list(
        self, method: str, field: str, convert: Callable[[Any], _Item]
    ) -> tuple[_Item, ...]:
        """Page after page."""
        items: list[_Item] = []
        request = getattr(control_pb2, f"{method}Request")()
        while True:
            page = await self._call(method, request)
            items += map(convert, getattr(page, field))
            if not page.next_page_token:
                return tuple(items)
            request.page_token = page.next_page_token


def _duration(seconds: float) -> Duration:
    duration = Duration()
    duration.FromNanoseconds(round(seconds * 1e9))
    return duration
