"""Workers without engines: real gRPC, real membership, and phases that change at once."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any, Self

from thunderserve.api.worker.v1 import worker_pb2
from thunderserve.api.worker.v1.worker_pb2_grpc import (
    WorkerServiceServicer,
    add_WorkerServiceServicer_to_server,
)
from thunderserve.core.fleet import Capabilities, Heartbeat, Router, Worker, WorkerStatus
from thunderserve.core.links import LinkMeasurement, LinkMethod, MeasuredLink
from thunderserve.core.plan import Gpu, Group, Phase, Plan, Route, Stage
from thunderserve.runtime.backoff import Backoff
from thunderserve.runtime.membership import Membership
from thunderserve.runtime.plan_watch import PlanWatch
from thunderserve.runtime.rpc import serve_rpc, stop_server
from thunderserve.wire.enums import phase_from_proto
from thunderserve.wire.fleet import worker_status_to_proto

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping, Sequence
    from types import TracebackType

    from thunderserve.core.workload import Workload

MODEL = "thunder-demo-7m"
BOTH = (Phase.PREFILL, Phase.DECODE)


def make_worker(group_id: str, *, address: str = "127.0.0.1:1", instance_id: str = "i0") -> Worker:
    """A worker of one GPU on a node of its own."""
    return Worker(
        group_id=group_id,
        node_id=f"n-{group_id}",
        gpus=(Gpu(f"n-{group_id}/0", "CPU"),),
        instance_id=instance_id,
        address=address,
        kvlink_address=f"{group_id}:7400",
        model=MODEL,
        capabilities=Capabilities(
            phases=BOTH,
            flippable=True,
            tp=1,
            pp=1,
            kv_dtype="bfloat16",
            page_size_tokens=16,
            context_tokens=2048,
        ),
    )


def make_link(
    peer_address: str, bytes_per_s: float, method: LinkMethod = LinkMethod.TRAFFIC
) -> LinkMeasurement:
    """What a sidecar measured a second ago."""
    return LinkMeasurement(
        peer_address=peer_address,
        bytes_per_s=bytes_per_s,
        rtt_s=0.0,
        retransmit_ratio=0.0,
        age_s=1.0,
        method=method,
    )


def quick_backoff() -> Backoff:
    """Tests do not wait."""
    return Backoff(first_s=0.01, longest_s=0.05)


class FakeWorker(WorkerServiceServicer):
    """A worker that attaches to control and switches as its fields say.

    Attributes:
        phase: The phase it is in.
        switch_error: Raised by a switch instead of switching.
        before_switch: Awaited before a switch takes effect.
        links: What its sidecar measured.
    """

    def __init__(
        self,
        group_id: str,
        phase: Phase,
        address: str,
        control: Sequence[str],
        advertised_address: str = "",
    ) -> None:
        self.worker = make_worker(group_id, address=advertised_address or address)
        self._address = address
        self.phase = phase
        self.switches: list[worker_pb2.SwitchPhaseRequest] = []
        self.links: tuple[LinkMeasurement, ...] = ()
        self.switch_error: Exception | None = None
        self.before_switch: Callable[[], Any] = lambda: asyncio.sleep(0)
        self._watch = PlanWatch(control, backoff=quick_backoff())
        self._membership = Membership(
            control,
            self.worker,
            self._heartbeat,
            on_leave=self._watch.move_on,
            backoff=quick_backoff(),
        )
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        server = await serve_rpc(
            self._address, lambda server: add_WorkerServiceServicer_to_server(self, server)
        )
        self._stack.push_async_callback(stop_server, server, 0)
        await self._stack.enter_async_context(self._watch)
        await self._stack.enter_async_context(self._membership)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._stack.aclose()

    async def vanish(self) -> None:
        """Be gone without a goodbye, as after a crash."""
        task = self._membership._task
        assert task is not None
        task.cancel()
        await asyncio.wait([task])

    def measure(self, *links: LinkMeasurement) -> None:
        """Tell control what the sidecar measured."""
        self.links = links
        self._membership.notify()

    def enter(self, phase: Phase) -> None:
        """Change the phase, and tell control."""
        self.phase = phase
        self._membership.notify()

    async def GetWorkerStatus(
        self, request: worker_pb2.GetWorkerStatusRequest, context: object
    ) -> worker_pb2.WorkerStatus:
        """How it is now."""
        del request, context
        return self._status()

    async def SwitchPhase(
        self, request: worker_pb2.SwitchPhaseRequest, context: object
    ) -> worker_pb2.SwitchPhaseResponse:
        """Change the phase, unless told to fail."""
        del context
        self.switches.append(request)
        await self.before_switch()
        if self.switch_error is not None:
            raise self.switch_error
        self.enter(phase_from_proto(request.phase))
        return worker_pb2.SwitchPhaseResponse(status=self._status(), drain_s=0.25, switch_s=0.5)

    def _heartbeat(self) -> Heartbeat:
        epoch = self._watch.epoch
        return Heartbeat(
            plan_epoch=epoch,
            in_flight=0,
            phase=self.phase,
            weight_loads=1,
            process_id=1,
            links=self.links,
        )

    def _status(self) -> worker_pb2.WorkerStatus:
        status = WorkerStatus(
            group_id=self.worker.group_id,
            instance_id=self.worker.instance_id,
            phase=self.phase,
            in_flight=0,
            weight_loads=1,
            process_id=1,
            switching=False,
        )
        return worker_status_to_proto(status)


class FakeRouter:
    """A router that follows plans and says so, and routes nothing.

    Attributes:
        epochs: Every epoch it followed, in order.
    """

    def __init__(self, router_id: str, control: Sequence[str]) -> None:
        self.epochs: list[int] = []
        self.watch = PlanWatch(control, on_change=self._follow, backoff=quick_backoff())
        router = Router(router_id, "i0", "127.0.0.1:1")
        self._membership = Membership(
            control,
            router,
            lambda: Heartbeat(plan_epoch=self.watch.epoch),
            on_leave=self.watch.move_on,
            backoff=quick_backoff(),
        )

    async def __aenter__(self) -> Self:
        await self.watch.__aenter__()
        await self._membership.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._membership.__aexit__(kind, error, traceback)
        await self.watch.__aexit__(kind, error, traceback)

    def _follow(self, view: object) -> None:
        del view
        self.epochs.append(self.watch.epoch)
        self._membership.notify()


class EqualWeightsPlanner:
    """Every pair gets the same weight; counts how often it is asked."""

    def __init__(self) -> None:
        self.solved = 0
        self.workload: Workload | None = None

    def group_of(self, worker: Worker, phase: Phase) -> Group:
        """A group of one stage of eight layers."""
        return Group(worker.group_id, phase, 1, 1, (Stage(8, worker.gpus),))

    def routes(
        self,
        workers: Sequence[Worker],
        phases: Mapping[str, Phase],
        workload: Workload | None = None,
        links: Sequence[MeasuredLink] = (),
    ) -> tuple[Route, ...]:
        """All pairs of prefill and decode groups."""
        del links
        self.solved += 1
        self.workload = workload
        ids = [worker.group_id for worker in workers]
        prefills = [i for i in ids if phases[i] is Phase.PREFILL]
        decodes = [i for i in ids if phases[i] is Phase.DECODE]
        pairs = [(p, d) for p in prefills for d in decodes]
        pairs += [(i, i) for i in ids if phases[i] is Phase.COLOCATED]
        return tuple(Route(p, d, 1 / len(pairs)) for p, d in pairs)


async def followed(router: FakeRouter, holds: Callable[[Plan], bool]) -> Plan:
    """The first plan from now on for which something holds."""
    async for plan, _ in router.watch.views():
        if holds(plan):
            return plan
    raise AssertionError


def weights(plan: Plan) -> dict[tuple[str, str], float]:
    """The weight of every pair."""
    return {(route.prefill, route.decode): route.weight for route in plan.routes}


@asynccontextmanager
async def fleet(
    control: Sequence[str], address_of: Callable[[str], str], **phases: Phase
) -> AsyncIterator[tuple[dict[str, FakeWorker], FakeRouter]]:
    """Workers of these phases and one router, once the router follows a plan over all of them."""
    workers = {
        group: FakeWorker(group, phase, address_of(group), control)
        for group, phase in phases.items()
    }
    async with asyncio.timeout(30), AsyncExitStack() as stack:
        router = await stack.enter_async_context(FakeRouter("r0", control))
        for worker in workers.values():
            await stack.enter_async_context(worker)
        await followed(router, lambda plan: {g.id for g in plan.groups} == set(phases))
        yield workers, router
