"""An emulated fleet: every service of it in this process, on loopback."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Self

from thunderserve.cli.emulated.layout import EmulatedLayout, Places, lay_out_emulated
from thunderserve.cli.emulated.member import Member
from thunderserve.cli.emulated.model_folder import write_model_folder
from thunderserve.cli.emulated.modelled import ModelledSidecar
from thunderserve.cli.emulated.options import EmulatedOptions, KvlinkKind
from thunderserve.cli.layout import PKI_FOLDER
from thunderserve.cli.ports import FreePorts
from thunderserve.cli.probes import HttpProbe
from thunderserve.client import AsyncClient, ControlClient
from thunderserve.control.bootstrap import serve as serve_control
from thunderserve.core.errors import DeadlineError, NotFoundError, UnavailableError
from thunderserve.core.fleet import GroupState
from thunderserve.core.identity import Role
from thunderserve.core.kv_volume import kv_wire_bytes
from thunderserve.engine.emulated import EmulatedClock, EmulatedNetwork, MemoryExchange
from thunderserve.engine.worker.bootstrap import serve_worker
from thunderserve.engine.worker.emulated_engine import emulated_engine
from thunderserve.kvlink.bootstrap import serve as serve_kvlink
from thunderserve.kvlink.worker_side import KvlinkSidecar
from thunderserve.router.bootstrap import serve as serve_router
from thunderserve.router.workload_window import MemoryWindow
from thunderserve.runtime.identity.pki import issue_local
from thunderserve.runtime.store.memory import MemoryStore

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType

    from thunderserve.control.planner.problem import Problem
    from thunderserve.core.plan import Plan
    from thunderserve.engine.emulated import EmulatedEngine, KvPort
    from thunderserve.engine.worker.bootstrap import Sidecar
    from thunderserve.engine.worker.config import WorkerConfig
    from thunderserve.kvlink.config import KvlinkConfig

__all__ = ["EmulatedFleet"]

_POLL_S = 0.05


class EmulatedFleet:
    """Control, router, workers and sidecars of a plan, by the code that runs them as processes.

    Use it as an asynchronous context; leaving the block stops everything.

    Args:
        options: What is wanted.
        problem: What the plan is for: its cluster's links are emulated.
        plan: Applied once all workers are there.
        run: An existing folder for sockets and the model's folder; its path must be short.
    """

    def __init__(self, options: EmulatedOptions, problem: Problem, plan: Plan, run: Path) -> None:
        self.options, self.problem, self.plan = options, problem, plan
        self._run = run
        model = write_model_folder(run / "model", problem.model, options.context_tokens)
        places = Places(run, model, FreePorts().take)
        self.layout: EmulatedLayout = lay_out_emulated(options, problem, plan, places)
        wire_bytes = kv_wire_bytes(problem.model, 1, problem.wire_mode)
        clock = EmulatedClock(options.speed)
        self.network = EmulatedNetwork(problem.cluster, problem.cost, wire_bytes, clock)
        self.engines: dict[str, EmulatedEngine] = {}
        self._exchange = MemoryExchange()
        self._store = MemoryStore()  # outlives control, as etcd does
        self._finished = MemoryWindow()
        self.members = {member.name: member for member in self._members()}

    async def start(self, timeout_s: float = 60.0) -> None:
        """Start every service, wait until all workers are there, and apply the plan.

        Raises:
            ThunderServeError: What a service ended with.
            DeadlineError: They were not ready in time.
        """
        pki = self._run / PKI_FOLDER
        issue_local(pki, Role.KVLINK, self.layout.workers, datetime.now(UTC))
        for member in self.members.values():
            member.start()
        try:
            async with asyncio.timeout(timeout_s):
                await self._until_ready()
                await self._apply()
        except TimeoutError:
            raise DeadlineError(f"the fleet was not ready within {timeout_s:g} s") from None

    async def wait_lost(self) -> str:
        """Wait until a member ends that nobody ended, and say how."""
        tasks = {member.task: member.name for member in self.members.values()}
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        ended = done.pop()
        cause = None if ended.cancelled() else ended.exception()
        return f"{tasks[ended]} has ended: {cause or 'nobody told it to'}"

    def members_of(self, name: str) -> tuple[Member, ...]:
        """A service, and where it is a group's worker its sidecar too.

        Raises:
            NotFoundError: There is none of that name.
        """
        found = [self.members[each] for each in (name, f"{name}-kvlink") if each in self.members]
        if not found:
            raise NotFoundError(f"the fleet has no {name}; it has {', '.join(self.members)}")
        return tuple(found)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        # In the order of starting reversed: nobody misses one that it still talks to.
        for member in reversed(self.members.values()):
            await member.stop()

    def _members(self) -> list[Member]:
        layout = self.layout
        control, router = layout.control, layout.router
        members = []
        if not self.options.control_addresses:
            members.append(
                Member(
                    "control",
                    lambda stopping: serve_control(control, stopping, self._store, self._finished),
                    [control.address],
                )
            )
        for group_id, worker in layout.workers.items():
            if self.options.kvlink is KvlinkKind.REAL:
                members.append(_sidecar(group_id, layout.sidecars[group_id]))
            members.append(self._worker(worker))
        addresses = [router.address, router.http_address]
        members.append(
            Member(
                "router",
                lambda stopping: serve_router(router, stopping, self._finished),
                addresses,
            )
        )
        return members

    def _worker(self, config: WorkerConfig) -> Member:
        sidecar: Sidecar = KvlinkSidecar()
        if self.options.kvlink is KvlinkKind.MODELLED:
            sidecar = ModelledSidecar(self._exchange, self.problem.wire_mode)

        def make_engine(config: WorkerConfig, port: KvPort | None) -> EmulatedEngine:
            engine = emulated_engine(config, port, self.network)
            self.engines[config.group_id] = engine
            return engine

        return Member(
            config.group_id,
            lambda stopping: serve_worker(config, stopping, sidecar, make_engine),
            [config.address],
        )

    async def _until_ready(self) -> None:
        probe = HttpProbe(self.layout.router.http_address, "/ready")
        while not await probe.ready():
            self.check_running()
            await asyncio.sleep(_POLL_S)

    async def _apply(self) -> None:
        """Publish the plan, as an operator does, and wait until the router follows it."""
        async with (
            ControlClient(",".join(self.layout.router.control_addresses)) as control,
            AsyncClient(self.layout.router.address) as router,
        ):
            while not await _all_serve(control):  # noqa: ASYNC110 - a service
                await asyncio.sleep(_POLL_S)
            published = await control.apply_plan(self.plan)
            while (await router.status()).plan_epoch < published.epoch:  # noqa: ASYNC110 - a service
                await asyncio.sleep(_POLL_S)

    def check_running(self) -> None:
        """Raise what a service has ended with."""
        for member in self.members.values():
            if not member.running:
                member.task.result()
                raise UnavailableError(f"{member.name} has ended")


async def _all_serve(control: ControlClient) -> bool:
    """A worker whose start was slow may have been taken for lost before it was ever seen."""
    return all(each.state is GroupState.SERVING for each in await control.groups())


def _sidecar(group_id: str, config: KvlinkConfig) -> Member:
    return Member(
        f"{group_id}-kvlink",
        lambda stopping: serve_kvlink(config, stopping),
        [config.address],
    )
