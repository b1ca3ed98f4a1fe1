"""What the options describe: a problem, and a trace to try its plans on."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from thunderserve.cli.planning.files import (
    read_cluster_file,
    read_links,
    read_model_folder,
    read_trace_file,
)
from thunderserve.cli.planning.options import ArrivalKind
from thunderserve.console.output import say
from thunderserve.control.planner.change import hosts_of, with_links
from thunderserve.control.planner.presets import CLUSTERS, PRESET_PROFILE, cluster_preset
from thunderserve.control.planner.problem import EngineLimits, Problem
from thunderserve.core.catalogue import PROFILES, catalogue
from thunderserve.core.cost import CostModel
from thunderserve.core.errors import InvalidArgumentError
from thunderserve.core.hardware import GIGABIT_PER_S, Cluster, Link, check_positive
from thunderserve.core.model import MODELS, ModelSpec, model_preset
from thunderserve.core.plan import Phase
from thunderserve.core.reference import single_request_latency
from thunderserve.core.request import WireMode
from thunderserve.core.slo import Slo, default_slo
from thunderserve.core.trace import Trace, sample_trace
from thunderserve.core.trace_workload import workload_of
from thunderserve.core.workload import POISSON, WORKLOADS, Workload, workload_preset

if TYPE_CHECKING:
    from thunderserve.cli.planning.options import PlannedOptions, ProblemOptions, TraceOptions
    from thunderserve.core.plan import Plan

__all__ = [
    "read_cluster",
    "read_model",
    "read_planned_problem",
    "read_problem",
    "read_trace",
    "read_workload",
]

_SAMPLED_REQUESTS = 10_000
_NOMINAL_GBIT_PER_S, _NOMINAL_LATENCY_S = 40.0, 1e-4


def read_problem(given: ProblemOptions, *, cluster: Cluster | None = None) -> Problem:
    """What the options describe.

    Args:
        given: The options.
        cluster: Instead of the one that they name; `--link` and `--links` change it too.

    Raises:
        ThunderServeError: One line that names the option or the place in a file.
    """
    model, workload = read_model(given.model), read_workload(given)
    cluster = _with_links(cluster or read_cluster(given), given)
    return Problem(
        cluster=cluster,
        model=model,
        workload=workload,
        slo=_read_slo(given, cluster, model, workload),
        engine=EngineLimits(
            max_nodes=given.max_nodes,
            phases=_read_phases(given.phases),
            chunk_tokens=_read_chunks(given.chunks),
        ),
        wire_mode=WireMode(given.wire.value),
        objective=given.objective,
        target_ratio=given.target,
        flippable_ratio=given.flippable,
    )


def read_planned_problem(given: PlannedOptions, plan: Plan) -> Problem:
    """What a plan was made for, where the options do not say; its hosts' ports are nominal then.

    Raises:
        ThunderServeError: One line that names the option or the place in a file.
    """
    named = replace(given, model=given.model or plan.model)
    if given.cluster:
        return read_problem(named)
    types = catalogue(given.profile or PRESET_PROFILE)
    port = Link(_NOMINAL_GBIT_PER_S * GIGABIT_PER_S, _NOMINAL_LATENCY_S)
    cluster = hosts_of(plan, types, port)
    if unpriced := sorted(types.unpriced.intersection(kind.name for kind in cluster.types)):
        raise InvalidArgumentError(
            f"nobody has told the price of {unpriced[0]}; give it under usd_per_hour in a "
            "file, and that file by --cluster",
            param="cluster",
        )
    say(
        f"no --cluster: the plan's hosts, each behind {_NOMINAL_GBIT_PER_S:.0f} Gbit/s, with the "
        f"figures of {types.profile}"
    )
    return read_problem(named, cluster=cluster)


def read_trace(given: ProblemOptions, drawn: TraceOptions, *, seed: int) -> Trace:
    """What arrives in a simulation: a trace as recorded, or requests drawn from the workload.

    Raises:
        ThunderServeError: One line that names the option or the line of a file.
    """
    if drawn.requests is not None and drawn.requests < 2:  # noqa: PLR2004 - a rate needs two
        raise InvalidArgumentError(
            f"--requests is {drawn.requests}; it must be at least 2", param="requests"
        )
    if _is_file(given) and given.arrivals in {None, ArrivalKind.RECORDED}:
        trace = read_trace_file(given.workload, WORKLOADS)
        trace = replace(trace, requests=trace.requests[: drawn.requests])
        return trace if given.rate is None else trace.with_rate(given.rate)
    number = drawn.requests or _SAMPLED_REQUESTS
    return sample_trace(read_workload(given), requests=number, seed=seed)


def read_workload(given: ProblemOptions) -> Workload:
    """A preset, what stands for a trace, or mean lengths; perhaps at another rate."""
    workload = _named_workload(given)
    if given.arrivals is ArrivalKind.POISSON:
        workload = replace(workload, arrivals=POISSON)
    return workload if given.rate is None else workload.with_rate(given.rate)


def _named_workload(given: ProblemOptions) -> Workload:
    if _is_file(given):
        trace = read_trace_file(given.workload, WORKLOADS)
        return workload_of(trace, bursts=given.arrivals is not ArrivalKind.POISSON)
    if given.arrivals is ArrivalKind.RECORDED:
        raise InvalidArgumentError(
            f"--arrivals recorded needs a trace's file; --workload is {given.workload!r}",
            param="arrivals",
        )
    if given.workload:
        return workload_preset(given.workload)
    return Workload.from_means(
        rate_rps=1.0, prompt_tokens=given.prompt_tokens, output_tokens=given.output_tokens
    )


def _is_file(given: ProblemOptions) -> bool:
    return bool(given.workload) and given.workload not in WORKLOADS


def read_cluster(given: ProblemOptions) -> Cluster:
    """A preset, or what a file describes; its links as they are there."""
    if given.profile:
        catalogue(given.profile)  # refuses an unknown one
    if given.cluster in CLUSTERS:
        return cluster_preset(given.cluster, profile=given.profile or PRESET_PROFILE)
    return read_cluster_file(given.cluster, given.profile, CLUSTERS)


def _with_links(cluster: Cluster, given: ProblemOptions) -> Cluster:
    """Ports as `--link` says, and pairs of hosts as the file of `--links` says."""
    if given.link is not None:
        check_positive("--link", gbit_per_s=given.link)
        ports = [Link(given.link * GIGABIT_PER_S, node.network.latency_s) for node in cluster.nodes]
        nodes = zip(cluster.nodes, ports, strict=True)
        cluster = replace(cluster, nodes=tuple(replace(node, network=port) for node, port in nodes))
    return cluster if given.links is None else with_links(cluster, read_links(given.links))


def read_model(name: str) -> ModelSpec:
    """A preset, or the model whose `config.json` is in a folder."""
    return model_preset(name) if name in MODELS else read_model_folder(name)


def _read_slo(given: ProblemOptions, cluster: Cluster, model: ModelSpec, workload: Workload) -> Slo:
    """The model's default, or so many times a single request's latency; then what is given."""
    slo = default_slo(model.name)
    if given.slo_scale is not None:
        types = (PROFILES["tensor_dense"].with_types(cluster.types)).get(given.slo_reference)
        slo = single_request_latency(CostModel(model), types, workload).scaled(given.slo_scale)
    return Slo(
        ttft_s=slo.ttft_s if given.slo_ttft is None else given.slo_ttft,
        tpot_s=slo.tpot_s if given.slo_tpot is None else given.slo_tpot,
        e2e_s=given.slo_e2e,
    )


def _read_chunks(text: str) -> tuple[int, ...]:
    sizes = [size.strip() for size in text.split(",")]
    if wrong := [size for size in sizes if not size.isdecimal() or int(size) < 1]:
        raise InvalidArgumentError(
            f"--chunks has {wrong[0]!r}; give whole numbers of tokens, such as 512,2048",
            param="chunks",
        )
    return tuple(dict.fromkeys(int(size) for size in sizes))


def _read_phases(text: str) -> tuple[Phase, ...]:
    names = [name.strip().upper() for name in text.split(",")]
    for name in names:
        if name not in Phase.__members__:
            raise InvalidArgumentError(
                f"--phases has {name.lower()!r}; there are prefill, decode, colocated",
                param="phases",
            )
    phases = tuple(phase for phase in Phase if phase in names)
    if len(phases) == 1 and phases[0] is not Phase.COLOCATED:
        raise InvalidArgumentError(
            f"--phases {text} serves nobody: it takes prefill and decode, or colocated",
            param="phases",
        )
    return phases
