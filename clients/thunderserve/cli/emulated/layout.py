"""The services of an emulated fleet and how each is configured; no input or output."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from thunderserve.cli.layout import PKI_FOLDER
from thunderserve.cli.ports import CONTROL_PORT, HTTP_PORT, ROUTER_PORT
from thunderserve.control.config import ControlConfig
from thunderserve.control.planner.presets import PRESET_PROFILE
from thunderserve.core.errors import ConfigError
from thunderserve.core.workload import WORKLOADS
from thunderserve.engine.worker.config import EngineKind, WorkerConfig
from thunderserve.kvlink.config import KvlinkConfig
from thunderserve.router.config import RouterConfig

if TYPE_CHECKING:
    from thunderserve.cli.emulated.options import EmulatedOptions
    from thunderserve.control.planner.problem import Problem
    from thunderserve.core.plan import Group, Plan

__all__ = ["EmulatedLayout", "Places", "lay_out_emulated"]

_MAX_IN_FLIGHT = 4096
_PAGE_TOKENS = 64


@dataclass(frozen=True, slots=True)
class EmulatedLayout:
    """Every service's configuration; workers and sidecars by group."""

    control: ControlConfig
    router: RouterConfig
    workers: Mapping[str, WorkerConfig]
    sidecars: Mapping[str, KvlinkConfig]


@dataclass(frozen=True, slots=True)
class Places:
    """Where an emulated fleet's files are, and how it finds ports.

    Attributes:
        run: The run directory.
        model: The model's folder.
        free_port: A port of this machine that nobody has, new at every call; see `FreePorts`.
    """

    run: Path
    model: Path
    free_port: Callable[[int], int]

    def address(self, preferred: int = 0) -> str:
        """A free address of loopback."""
        return f"127.0.0.1:{self.free_port(preferred)}"


def lay_out_emulated(
    options: EmulatedOptions, problem: Problem, plan: Plan, places: Places
) -> EmulatedLayout:
    """Give every service its addresses, one worker and one sidecar for each group of the plan.

    Raises:
        ConfigError: A group spans hosts, which a worker does not.
    """
    control = _control(options, problem, plan, places)
    sidecars = {group.id: _sidecar(group, problem, places) for group in plan.groups}
    workers = {
        group.id: _worker(group, options, problem, plan, places, control, sidecars[group.id])
        for group in plan.groups
    }
    return EmulatedLayout(control, _router(options, plan, places, control), workers, sidecars)


def _control(
    options: EmulatedOptions, problem: Problem, plan: Plan, places: Places
) -> ControlConfig:
    workload = problem.workload
    return ControlConfig(
        address=(options.control_addresses or (places.address(CONTROL_PORT),))[0],
        model_name=plan.model,
        fleet="emulated",
        lease_ttl_s=options.lease_ttl_s,
        heartbeat_interval_s=options.heartbeat_interval_s,
        expected_workers=len(plan.groups),
        planned_rate_rps=workload.rate_rps,
        planned_workload=workload.name if workload.name in WORKLOADS else "",
        slo_ttft_s=problem.slo.ttft_s,
        slo_tpot_s=problem.slo.tpot_s,
        gpu_profile=options.profile or PRESET_PROFILE,
        nominal_bytes_per_s=min(node.network.bytes_per_s for node in problem.cluster.nodes),
        planned_prompt_tokens=workload.prompt.mean,
        planned_output_tokens=workload.output.mean,
    )


def _router(
    options: EmulatedOptions, plan: Plan, places: Places, control: ControlConfig
) -> RouterConfig:
    chosen = options.http_port
    return RouterConfig(
        address=places.address(ROUTER_PORT),
        http_address=f"127.0.0.1:{chosen}" if chosen else places.address(HTTP_PORT),
        control_addresses=options.control_addresses or (control.address,),
        model_name=plan.model,
        model_path=places.model,
        fleet=control.fleet,
        max_in_flight=_MAX_IN_FLIGHT,
    )


def _sidecar(group: Group, problem: Problem, places: Places) -> KvlinkConfig:
    return KvlinkConfig(
        address=places.address(),
        identity=places.run / PKI_FOLDER / group.id,
        local_address=f"unix:{places.run / group.id}.local",
        engine_socket=places.run / f"{group.id}.engine",
        wire_mode=problem.wire_mode,
    )


def _worker(  # noqa: PLR0917 - all that a worker is made from
    group: Group,
    options: EmulatedOptions,
    problem: Problem,
    plan: Plan,
    places: Places,
    control: ControlConfig,
    sidecar: KvlinkConfig,
) -> WorkerConfig:
    nodes = sorted({gpu.node for gpu in group.gpus})
    if len(nodes) > 1:
        raise ConfigError(
            f"group {group.id} is on {' and '.join(nodes)}; a worker is on one host: plan with "
            "--max-nodes 1"
        )
    return WorkerConfig(
        address=places.address(),
        group_id=group.id,
        node_id=nodes[0],
        gpus=tuple(f"{gpu.id}:{gpu.type}" for gpu in group.gpus),
        model_name=plan.model,
        model_path=places.model,
        phase=group.phase,
        control_addresses=options.control_addresses or (control.address,),
        engine=EngineKind.EMULATED,
        kvlink_local_address=sidecar.local_address,
        kvlink_engine_socket=str(sidecar.engine_socket),
        kvlink_advertised_address=sidecar.peer_address,
        max_running_requests=problem.engine.max_running_requests,
        chunked_prefill_tokens=plan.chunk_tokens or problem.engine.chunk_tokens[0],
        tp=group.tp,
        pp=group.pp,
        page_size_tokens=_PAGE_TOKENS,
        emulated_profile=options.profile or PRESET_PROFILE,
        emulated_flip_s=options.flip_s,
        emulated_speed=options.speed,
        emulated_kv_ratio=options.kv_ratio,
    )
