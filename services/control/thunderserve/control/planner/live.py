"""Planning over the workers that are alive; for the control plane.

Three functions, pure and total: they answer for any load and any fleet.

`route_workers(workers, phases, *, model, workload) -> tuple[Route, ...]`
    Routes between the groups in the phases they have. Weights sum to 1; equal groups get equal
    weights; a load beyond capacity is scaled down. No routes when there is no prefill or no decode
    group (and no colocated one): a legal plan that serves nobody.

`plan_workers(workers, phases, *, model, workload, seed, keep_phases) -> Plan`
    Phases, routes and predicted figures, at epoch 0. Groups and GPUs stay; only groups that can
    flip change their phase, and never without gain.

`predict_workers(workers, phases, routes, *, model, workload) -> Prediction`
    What is to be expected of given phases and routes.

`phases` maps group ids to present phases; a worker that it lacks takes no part. `group_of` turns a
worker into the plan's group. Build the workload with
`Workload.from_means(rate_rps=..., prompt_tokens=..., output_tokens=...)`, the model with
`ModelSpec.from_config(name, config)`.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from typing import TYPE_CHECKING

from thunderserve.control.planner.assembly import routes_of
from thunderserve.control.planner.design import design_of
from thunderserve.control.planner.flow import Assessment, Evaluator, Seat, follow_routes, predict
from thunderserve.control.planner.live_links import with_measured_links
from thunderserve.control.planner.problem import EngineLimits, Problem
from thunderserve.control.planner.rescheduling import choose_phases
from thunderserve.core.catalogue import PROFILES, Catalogue
from thunderserve.core.errors import InvalidArgumentError
from thunderserve.core.hardware import Cluster, GpuType, Link, Node
from thunderserve.core.kv_volume import kv_bytes
from thunderserve.core.plan import Group, Phase, Plan, Stage
from thunderserve.core.slo import Slo

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from thunderserve.core.fleet import Worker
    from thunderserve.core.links import MeasuredLink
    from thunderserve.core.model import ModelSpec
    from thunderserve.core.plan import Gpu, Prediction, Route
    from thunderserve.core.workload import Workload

__all__ = [
    "NOMINAL_NETWORK",
    "NO_BOUNDS",
    "group_of",
    "live_choices",
    "live_problem",
    "live_seats",
    "plan_workers",
    "predict_workers",
    "route_workers",
]

NOMINAL_NETWORK = Link(bytes_per_s=1.25e9, latency_s=1e-4)
"""10 Gbit/s: what a node's port is taken for until it is measured."""

NO_BOUNDS = Slo(ttft_s=1e5, tpot_s=1e5)
"""Objectives that every request meets: the flow then balances load."""

_UNKNOWN_TYPE = "CPU"
_ROOM_RATIO = 4.0
"""Times what the weights and one request take: what a live group's GPUs have at least."""


def group_of(worker: Worker, phase: Phase, model: ModelSpec) -> Group:
    """The group that a worker serves, layers spread evenly as the engine does.

    Raises:
        InvalidArgumentError: The worker's GPUs are not tp * pp.
    """
    tp, pp = worker.capabilities.tp, worker.capabilities.pp
    if tp < 1 or pp < 1 or tp * pp != len(worker.gpus):
        raise InvalidArgumentError(
            f"worker {worker.group_id} says tp {tp} and pp {pp}, but has {len(worker.gpus)} GPUs",
            param="capabilities",
        )
    if pp > model.layers:
        raise InvalidArgumentError(
            f"worker {worker.group_id} has {pp} stages for {model.layers} layers", param="pp"
        )
    stages = tuple(
        Stage(model.layers // pp + (i < model.layers % pp), worker.gpus[i * tp : (i + 1) * tp])
        for i in range(pp)
    )
    return Group(worker.group_id, phase, tp, pp, stages)


def route_workers(
    workers: Sequence[Worker],
    phases: Mapping[str, Phase],
    *,
    model: ModelSpec,
    workload: Workload,
    slo: Slo = NO_BOUNDS,
    catalogue: Catalogue = PROFILES["tensor_dense"],
    network: Link = NOMINAL_NETWORK,
    links: Sequence[MeasuredLink] = (),
) -> tuple[Route, ...]:
    """Routes between live groups in their present phases.

    Args:
        workers: The live workers that may be routed to.
        phases: Present phase by group id; workers that it lacks are left out.
        model: What they all hold.
        workload: What is expected to arrive; any positive load is answered.
        slo: Bounds to attain; without them the flow balances load.
        catalogue: Where GPU types are looked up; one that it lacks is judged as a plain CPU.
        network: Every node's port, where its links were not measured.
        links: What was measured between the workers' sidecars.

    Returns:
        Routes whose weights sum to 1, or none when nobody can serve.
    """
    seats = live_seats(workers, phases, model)
    if not seats:
        return ()
    problem = live_problem(workers, model, workload, slo, (catalogue, network), links=links)
    return routes_of(Evaluator(problem).assess(seats))


def plan_workers(
    workers: Sequence[Worker],
    phases: Mapping[str, Phase],
    *,
    model: ModelSpec,
    workload: Workload,
    seed: int = 0,
    keep_phases: bool = False,
    slo: Slo = NO_BOUNDS,
    catalogue: Catalogue = PROFILES["tensor_dense"],
    network: Link = NOMINAL_NETWORK,
    links: Sequence[MeasuredLink] = (),
) -> Plan:
    """Phases, routes and predicted figures over the live groups; see `route_workers`.

    Nothing here is drawn at random: `seed` is recorded in the plan.
    """
    seats = live_seats(workers, phases, model)
    taking_part = [worker for worker in workers if worker.group_id in phases]
    if not seats:
        return Plan(0, "thunderserve", seed, model.name, (), ())
    problem = live_problem(workers, model, workload, slo, (catalogue, network), links=links)
    evaluator = Evaluator(problem)
    choices = {
        worker.group_id: live_choices(
            worker, phases[worker.group_id], problem.engine, keep=keep_phases
        )
        for worker in taking_part
    }
    best = choose_phases(evaluator, seats, choices)
    chosen = {seat.id: seat.phase for seat in best.seats}
    return Plan(
        epoch=0,
        strategy="thunderserve",
        seed=seed,
        model=model.name,
        groups=tuple(group_of(worker, chosen[worker.group_id], model) for worker in taking_part),
        routes=routes_of(best),
        predicted=_predicted(evaluator, best, taking_part, catalogue),
        search_evaluations=evaluator.flows_solved,
    )


def predict_workers(
    workers: Sequence[Worker],
    phases: Mapping[str, Phase],
    routes: Sequence[Route],
    *,
    model: ModelSpec,
    workload: Workload,
    slo: Slo = NO_BOUNDS,
    catalogue: Catalogue = PROFILES["tensor_dense"],
    network: Link = NOMINAL_NETWORK,
    links: Sequence[MeasuredLink] = (),
) -> Prediction:
    """What the cost model expects of given routes, each with its weight's share of the requests.

    Phases are those that the groups are to have; for the rest see `route_workers`.
    """
    taking_part = [worker for worker in workers if worker.group_id in phases]
    problem = live_problem(workers, model, workload, slo, (catalogue, network), links=links)
    evaluator = Evaluator(problem)
    best = evaluator.assess(live_seats(workers, phases, model))
    kept = replace(best, flow=follow_routes(best.problem, routes))
    return _predicted(evaluator, kept, taking_part, catalogue)


def _predicted(
    evaluator: Evaluator, found: Assessment, workers: Sequence[Worker], catalogue: Catalogue
) -> Prediction:
    """Without a price where a GPU has none."""
    predicted = predict(evaluator, found)
    kinds = {gpu.type for worker in workers for gpu in worker.gpus}
    priced = kinds <= set(catalogue.names) - catalogue.unpriced
    return predicted if priced else replace(predicted, usd_per_hour=None)


def live_choices(
    worker: Worker,
    present: Phase,
    engine: EngineLimits,
    *,
    keep: bool = False,
) -> tuple[Phase, ...]:
    """The phases that a worker may take: both halves of a split, if its engine can flip."""
    able = worker.capabilities
    split = (Phase.PREFILL, Phase.DECODE)
    free = able.flippable and able.pp <= engine.flip_max_pp and not keep
    if free and present in split and all(phase in able.phases for phase in split):
        return split
    return (present,)


def live_seats(
    workers: Sequence[Worker], phases: Mapping[str, Phase], model: ModelSpec
) -> list[Seat]:
    """The groups of the workers whose phase is known."""
    return [
        Seat(worker.group_id, phase, design_of(group_of(worker, phase, model)))
        for worker in workers
        if (phase := phases.get(worker.group_id)) is not None
    ]


def live_problem(
    workers: Sequence[Worker],
    model: ModelSpec,
    workload: Workload,
    slo: Slo,
    hardware: tuple[Catalogue, Link],
    *,
    links: Sequence[MeasuredLink] = (),
) -> Problem:
    """The live workers' hardware, and what it is to serve.

    A live group holds the model and a request, whatever the catalogue says of its memory, so memory
    is raised to what that takes.
    """
    catalogue, network = hardware
    longest = workload.prompt.values[-1] + workload.output.values[-1]
    least_bytes = model.weight_bytes + kv_bytes(model, longest)
    by_node: dict[str, dict[str, Gpu]] = defaultdict(dict)
    types: dict[str, GpuType] = {}
    for worker in workers:
        for gpu in worker.gpus:
            by_node[worker.node_id][gpu.id] = gpu
            known = types.get(gpu.type) or _known_type(catalogue, gpu.type)
            needed = _ROOM_RATIO * least_bytes / len(worker.gpus)
            types[gpu.type] = replace(known, memory_bytes=max(known.memory_bytes, needed))
    nodes = tuple(
        Node(node_id, tuple(gpus.values()), _local(gpus.values(), types), network)
        for node_id, gpus in by_node.items()
    )
    engine = EngineLimits(
        unequal_tp=all(worker.capabilities.unequal_tp for worker in workers),
        unequal_pp=all(worker.capabilities.unequal_pp for worker in workers),
    )
    cluster = with_measured_links(Cluster(nodes, tuple(types.values())), links)
    return Problem(cluster, model, workload, slo, engine)


def _local(gpus: Iterable[Gpu], types: Mapping[str, GpuType]) -> Link:
    return Link(min(types[gpu.type].local_bytes_per_s for gpu in gpus))


def _known_type(catalogue: Catalogue, name: str) -> GpuType:
    try:
        return catalogue.get(name)
    except InvalidArgumentError:
        return replace(catalogue.get(_UNKNOWN_TYPE), name=name)
