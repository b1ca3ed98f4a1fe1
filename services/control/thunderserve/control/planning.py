"""The planner, as the control plane uses it: over live workers, with the planned workload."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from thunderserve.control.planner.live import group_of, plan_workers, route_workers

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from thunderserve.core.fleet import Worker
    from thunderserve.core.model import ModelSpec
    from thunderserve.core.plan import Group, Phase, Plan, Route
    from thunderserve.core.workload import Workload

__all__ = ["LivePlanner", "Planner"]


class Planner(Protocol):
    """Decides over live workers; pure: the same answer for the same arguments."""

    def group_of(self, worker: Worker, phase: Phase) -> Group:
        """The group that a worker serves; raises InvalidArgumentError."""

    def routes(self, workers: Sequence[Worker], phases: Mapping[str, Phase]) -> tuple[Route, ...]:
        """Routes between live groups for the planned workload."""

    def plan(
        self,
        workers: Sequence[Worker],
        phases: Mapping[str, Phase],
        *,
        workload: Workload,
        seed: int,
        keep_phases: bool,
    ) -> Plan:
        """Phases and routes for a workload, at epoch 0."""


class LivePlanner:
    """The planner of this package.

    Args:
        model: What the fleet serves.
        workload: What is expected to arrive.
    """

    def __init__(self, model: ModelSpec, workload: Workload) -> None:
        self._model = model
        self._workload = workload

    def group_of(self, worker: Worker, phase: Phase) -> Group:
        """See `Planner.group_of`."""
        return group_of(worker, phase, self._model)

    def routes(self, workers: Sequence[Worker], phases: Mapping[str, Phase]) -> tuple[Route, ...]:
        """See `Planner.routes`."""
        return route_workers(workers, phases, model=self._model, workload=self._workload)

    def plan(
        self,
        workers: Sequence[Worker],
        phases: Mapping[str, Phase],
        *,
        workload: Workload,
        seed: int,
        keep_phases: bool,
    ) -> Plan:
        """See `Planner.plan`."""
        return plan_workers(
            workers,
            phases,
            model=self._model,
            workload=workload,
            seed=seed,
            keep_phases=keep_phases,
        )
