"""What the next plan is: from who is alive, what stands and what is wanted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

from thunderserve.control.inventory import LiveWorker, links_of
from thunderserve.control.standing import Intent, Standing
from thunderserve.core.fleet import Heartbeat, PlanView, Worker
from thunderserve.core.plan import Group, Phase, Plan, Route

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from thunderserve.control.inventory import Inventory
    from thunderserve.core.links import MeasuredLink
    from thunderserve.core.workload import Workload

__all__ = ["RouteSolver", "Rules", "can_serve", "reconcile", "restricted"]


class RouteSolver(Protocol):
    """Weights between live groups; the same answer for the same arguments."""

    def __call__(
        self,
        workers: Sequence[Worker],
        phases: Mapping[str, Phase],
        workload: Workload | None,
        links: Sequence[MeasuredLink],
    ) -> tuple[Route, ...]:
        """Routes whose weights sum to 1, or none when no pair can serve.

        Args:
            workers: Who may be routed to.
            phases: The phase of each of their groups.
            workload: What arrives; None is what was configured.
            links: What was measured between their sidecars.
        """


@dataclass(frozen=True, slots=True)
class Rules:
    """What does not change while the control plane runs.

    Attributes:
        model: Name of the served model.
        expected_workers: The first plan waits for so many.
        group_of: The group that a worker serves, in a phase.
        solve: Solves routes where no operator gave them.
    """

    model: str
    expected_workers: int
    group_of: Callable[[Worker, Phase], Group]
    solve: RouteSolver


def reconcile(
    inventory: Inventory,
    standing: Standing | None,
    intent: Intent,
    rules: Rules,
    *,
    awaited: Collection[str] = (),
    reason: str = "",
    again: bool = False,
) -> Standing | None:
    """The next plan to publish, numbered; None when what stands is right.

    Live groups keep the phases that they are in. A lost group stays in the plan without routes. A
    new group joins, unless an operator's plan stands: that is only cut down to the groups that
    are alive, and grows back when they return.

    Args:
        inventory: Who is alive.
        standing: What is published; None before the first plan.
        intent: What is wanted now.
        rules: Model, first plan, solver.
        awaited: Groups of the plan that count as alive though they are not attached: just after
            a start their workers have not had the time to come back.
        reason: Why this was asked, for people; empty: it is found out.
        again: Publish even if nothing changed: the store has lost what stands.
    """
    live = _live_workers(inventory, standing, awaited)
    if standing is None and len(live) < rules.expected_workers:
        return None
    groups = _groups(live, standing, intent, rules)
    ids = {group.id for group in groups}
    workers = tuple(each.worker for each in live if each.worker.group_id in ids)
    if standing is not None and not again and _stands(standing, groups, workers, intent, inventory):
        return None
    phases = {group.id: group.phase for group in groups}
    away = {*intent.drained, intent.flipping}
    usable = tuple(worker for worker in workers if worker.group_id not in away)
    plan = replace(
        _with_routes(groups, usable, phases, intent, rules, links=links_of(inventory)),
        epoch=max(standing.plan.epoch if standing else 0, inventory.highest_epoch) + 1,
        created_unix_s=0.0,
        reason=reason or _reason(standing, workers, inventory, again=again),
    )
    return Standing(PlanView(plan, workers), intent)


def restricted(routes: Sequence[Route], pairs: Collection[tuple[str, str]]) -> tuple[Route, ...]:
    """The routes of these pairs, their weights raised to sum to 1 again."""
    kept = [route for route in routes if (route.prefill, route.decode) in pairs]
    total = sum(route.weight for route in kept)
    if total <= 0:
        return ()
    return tuple(replace(route, weight=route.weight / total) for route in kept)


def can_serve(phases: Collection[Phase]) -> bool:
    """True when groups in these phases can answer a request."""
    return Phase.COLOCATED in phases or {Phase.PREFILL, Phase.DECODE} <= set(phases)


def _live_workers(
    inventory: Inventory, standing: Standing | None, awaited: Collection[str]
) -> tuple[LiveWorker, ...]:
    """Workers that say which phase they are in, and those of the plan that are waited for."""
    live = [each for each in inventory.workers if each.heartbeat.phase is not None]
    if standing is not None:
        phases = {group.id: group.phase for group in standing.plan.groups}
        present = {each.worker.group_id for each in live}
        live += [
            LiveWorker(worker, Heartbeat(phase=phases[worker.group_id]))
            for worker in standing.view.workers
            if worker.group_id in awaited and worker.group_id not in present
        ]
    return tuple(sorted(live, key=lambda each: each.worker.group_id))


def _groups(
    live: Sequence[LiveWorker], standing: Standing | None, intent: Intent, rules: Rules
) -> tuple[Group, ...]:
    by_id = {each.worker.group_id: each for each in live}
    held = {gpu.id for each in live for gpu in each.worker.gpus}
    base = intent.applied or (standing.plan if standing else None)
    groups: list[Group] = []
    for group in base.groups if base else ():
        if group.id in by_id:
            groups.append(_present(group, by_id[group.id], intent, rules))
        elif not held & {gpu.id for gpu in group.gpus}:
            groups.append(group)  # lost, and nobody has taken its place
    if intent.applied is None:
        known = {group.id for group in groups}
        groups += [_declared(each, rules) for each in live if each.worker.group_id not in known]
    return tuple(groups)


def _present(group: Group, live: LiveWorker, intent: Intent, rules: Rules) -> Group:
    """The group as it is now; while it flips it keeps the phase that it is leaving."""
    can = live.worker.capabilities
    if (group.gpus, group.tp, group.pp) != (live.worker.gpus, can.tp, can.pp):
        return _declared(live, rules)
    if group.id == intent.flipping or live.heartbeat.phase is None:
        return group
    return replace(group, phase=live.heartbeat.phase)


def _declared(live: LiveWorker, rules: Rules) -> Group:
    assert live.heartbeat.phase is not None  # noqa: S101 - `_live_workers` saw to it
    return rules.group_of(live.worker, live.heartbeat.phase)


def _stands(
    standing: Standing,
    groups: tuple[Group, ...],
    workers: tuple[Worker, ...],
    intent: Intent,
    inventory: Inventory,
) -> bool:
    published = (standing.plan.groups, standing.view.workers, standing.intent)
    # Members that follow a higher epoch would refuse this plan for ever: the store was emptied.
    return (groups, workers, intent) == published and (
        inventory.highest_epoch <= standing.plan.epoch
    )


def _with_routes(
    groups: tuple[Group, ...],
    usable: Sequence[Worker],
    phases: Mapping[str, Phase],
    intent: Intent,
    rules: Rules,
    *,
    links: Sequence[MeasuredLink],
) -> Plan:
    if intent.applied is None:
        mine = {worker.group_id: phases[worker.group_id] for worker in usable}
        served = can_serve(mine.values())
        routes = rules.solve(usable, mine, intent.workload, links) if served else ()
        return Plan(0, "thunderserve", 0, rules.model, groups, routes)
    routes = restricted(intent.applied.routes, _pairs(usable, phases))
    whole = len(routes) == len(intent.applied.routes)
    return replace(
        intent.applied,
        groups=groups,
        routes=routes,
        predicted=intent.applied.predicted if whole else None,
    )


def _pairs(usable: Sequence[Worker], phases: Mapping[str, Phase]) -> set[tuple[str, str]]:
    by_phase: dict[Phase, list[str]] = {phase: [] for phase in Phase}
    for worker in usable:
        by_phase[phases[worker.group_id]].append(worker.group_id)
    split = {(p, d) for p in by_phase[Phase.PREFILL] for d in by_phase[Phase.DECODE]}
    return split | {(both, both) for both in by_phase[Phase.COLOCATED]}


def _reason(
    standing: Standing | None, workers: Sequence[Worker], inventory: Inventory, *, again: bool
) -> str:
    if standing is None:
        return f"first plan, of {len(workers)} workers"
    before = {worker.group_id: worker for worker in standing.view.workers}
    now = {worker.group_id: worker for worker in workers}
    parts = [f"{i} is lost" for i in before.keys() - now.keys()]
    parts += [f"{i} has come" for i in now.keys() - before.keys()]
    parts += [f"{i} has restarted" for i in now.keys() & before.keys() if now[i] != before[i]]
    if inventory.highest_epoch > standing.plan.epoch:
        parts.append(f"members follow epoch {inventory.highest_epoch} already")
    if again:
        parts.append(f"the store had lost plan {standing.plan.epoch}")
    return ", ".join(sorted(parts)) or "a group has changed its phase"
