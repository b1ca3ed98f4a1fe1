"""The planner, as the control plane uses it: over live workers, with the planned workload."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, TypedDict

from thunderserve.control.planner.live import (
    NO_BOUNDS,
    NOMINAL_NETWORK,
    group_of,
    plan_workers,
    predict_workers,
    route_workers,
)
from thunderserve.control.planner.live_change import weigh_workers
from thunderserve.control.planner.live_served import served_rps
from thunderserve.control.planner.rescheduling import DEFAULT_LOAD_BYTES_PER_S
from thunderserve.core.catalogue import PROFILES, Catalogue

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from thunderserve.control.planner.live_change import Weighed
    from thunderserve.core.fleet import Worker
    from thunderserve.core.hardware import Link
    from thunderserve.core.links import MeasuredLink
    from thunderserve.core.model import ModelSpec
    from thunderserve.core.plan import Group, Phase, Plan, Prediction, Route
    from thunderserve.core.slo import Slo
    from thunderserve.core.workload import Workload

__all__ = ["LivePlanner", "Planner"]


class Planner(Protocol):
    """Decides over live workers; pure: the same answer for the same arguments."""

    def group_of(self, worker: Worker, phase: Phase) -> Group:
        """The group that a worker serves; raises InvalidArgumentError."""

    def routes(
        self,
        workers: Sequence[Worker],
        phases: Mapping[str, Phase],
        workload: Workload | None = None,
        links: Sequence[MeasuredLink] = (),
    ) -> tuple[Route, ...]:
        """Routes between live groups for a workload; None is the configured one."""

    def weigh(
        self,
        workers: Sequence[Worker],
        phases: Mapping[str, Phase],
        routes: Sequence[Route],
        workload: Workload | None = None,
        links: Sequence[MeasuredLink] = (),
    ) -> Weighed:
        """What new routes and flips would bring for a workload; None is the configured one."""

    def plan(
        self,
        workers: Sequence[Worker],
        phases: Mapping[str, Phase],
        *,
        workload: Workload,
        seed: int,
        keep_phases: bool,
        links: Sequence[MeasuredLink] = (),
    ) -> Plan:
        """Phases and routes for a workload, at epoch 0."""

    def restart_s(self, worker: Worker) -> float:
        """Seconds to load a worker's weights anew, where its engine cannot flip."""

    def served_rps(
        self,
        workers: Sequence[Worker],
        phases: Mapping[str, Phase],
        workload: Workload | None = None,
        links: Sequence[MeasuredLink] = (),
    ) -> float:
        """Requests per second in time that these groups can serve of a workload."""

    def predict(
        self,
        workers: Sequence[Worker],
        phases: Mapping[str, Phase],
        routes: Sequence[Route],
        workload: Workload | None = None,
        links: Sequence[MeasuredLink] = (),
    ) -> Prediction:
        """What to expect of phases and routes for a workload; None is the configured one."""


class _About(TypedDict):
    """What every question to the planner says besides who is alive."""

    model: ModelSpec
    workload: Workload
    slo: Slo
    catalogue: Catalogue
    network: Link
    links: Sequence[MeasuredLink]


class LivePlanner:
    """The planner of this package.

    Args:
        model: What the fleet serves.
        workload: What is expected to arrive.
        slo: Bounds to attain; without them the flow balances load.
        catalogue: What is known of GPU types.
        network: Every node's port, where its links were not measured.
    """

    def __init__(
        self,
        model: ModelSpec,
        workload: Workload,
        slo: Slo = NO_BOUNDS,
        catalogue: Catalogue = PROFILES["tensor_dense"],
        network: Link = NOMINAL_NETWORK,
    ) -> None:
        self._model = model
        self._catalogue = catalogue
        self._network = network
        self._workload = workload
        self._slo = slo

    def group_of(self, worker: Worker, phase: Phase) -> Group:
        """See `Planner.group_of`."""
        return group_of(worker, phase, self._model)

    def routes(
        self,
        workers: Sequence[Worker],
        phases: Mapping[str, Phase],
        workload: Workload | None = None,
        links: Sequence[MeasuredLink] = (),
    ) -> tuple[Route, ...]:
        """See `Planner.routes`."""
        return route_workers(workers, phases, **self._about(workload, links))

    def weigh(
        self,
        workers: Sequence[Worker],
        phases: Mapping[str, Phase],
        routes: Sequence[Route],
        workload: Workload | None = None,
        links: Sequence[MeasuredLink] = (),
    ) -> Weighed:
        """See `Planner.weigh`."""
        return weigh_workers(workers, phases, routes, **self._about(workload, links))

    def plan(
        self,
        workers: Sequence[Worker],
        phases: Mapping[str, Phase],
        *,
        workload: Workload,
        seed: int,
        keep_phases: bool,
        links: Sequence[MeasuredLink] = (),
    ) -> Plan:
        """See `Planner.plan`."""
        return plan_workers(
            workers,
            phases,
            seed=seed,
            keep_phases=keep_phases,
            **self._about(workload, links),
        )

    def predict(
        self,
        workers: Sequence[Worker],
        phases: Mapping[str, Phase],
        routes: Sequence[Route],
        workload: Workload | None = None,
        links: Sequence[MeasuredLink] = (),
    ) -> Prediction:
        """See `Planner.predict`."""
        return predict_workers(workers, phases, routes, **self._about(workload, links))

    def restart_s(self, worker: Worker) -> float:
        """See `Planner.restart_s`; a worker is on one host, which reads at its disk's rate."""
        del worker
        return self._model.weight_bytes / DEFAULT_LOAD_BYTES_PER_S

    def served_rps(
        self,
        workers: Sequence[Worker],
        phases: Mapping[str, Phase],
        workload: Workload | None = None,
        links: Sequence[MeasuredLink] = (),
    ) -> float:
        """See `Planner.served_rps`."""
        return served_rps(workers, phases, **self._about(workload, links))

    def _about(self, workload: Workload | None, links: Sequence[MeasuredLink]) -> _About:
        return _About(
            model=self._model,
            workload=workload or self._workload,
            slo=self._slo,
            catalogue=self._catalogue,
            network=self._network,
            links=links,
        )
