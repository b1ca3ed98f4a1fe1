"""What the command line names: clusters, models, workloads, plans; from presets or files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from thunderserve.control.planner.presets import CLUSTERS, cluster_preset
from thunderserve.control.planner.problem import EngineLimits, Problem
from thunderserve.core.cluster_file import cluster_from_mapping, links_from_mapping
from thunderserve.core.errors import InvalidArgumentError
from thunderserve.core.model import MODELS, ModelSpec, model_preset
from thunderserve.core.plan_file import plan_from_mapping
from thunderserve.core.slo import Slo
from thunderserve.core.trace import Trace, sample_trace
from thunderserve.core.workload import Workload, workload_preset

if TYPE_CHECKING:
    from thunderserve.cli.planning.options import ProblemOptions, TraceOptions
    from thunderserve.core.hardware import Cluster, Link
    from thunderserve.core.plan import Plan

__all__ = [
    "read_cluster",
    "read_links",
    "read_model",
    "read_plan",
    "read_problem",
    "read_trace",
    "read_workload",
]


def read_problem(given: ProblemOptions, *, cluster: Cluster | None = None) -> Problem:
    """What the options describe.

    Args:
        given: The options.
        cluster: Instead of the one that they name.

    Raises:
        InvalidArgumentError: One of them is wrong.
    """
    return Problem(
        cluster=cluster or read_cluster(given),
        model=read_model(given.model),
        workload=read_workload(given),
        slo=Slo(ttft_s=given.slo_ttft, tpot_s=given.slo_tpot, e2e_s=given.slo_e2e),
        engine=EngineLimits(max_nodes=given.max_nodes),
        wire_mode=given.wire,
        objective=given.objective,
        target_ratio=given.target,
        flippable_ratio=given.flippable,
    )


def read_trace(problem: Problem, given: TraceOptions, *, seed: int) -> Trace:
    """What arrives in a simulation of the problem."""
    return sample_trace(problem.workload, requests=given.requests, seed=seed)


def read_cluster(given: ProblemOptions) -> Cluster:
    """A preset, or what a file describes."""
    name = given.cluster
    if name in CLUSTERS:
        return cluster_preset(name, profile=given.profile)
    return cluster_from_mapping(_read_yaml("cluster", name, CLUSTERS))


def read_model(name: str) -> ModelSpec:
    """A preset, or the model whose `config.json` is in a folder."""
    if name in MODELS:
        return model_preset(name)
    path = Path(name) / "config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InvalidArgumentError(
            f"--model {name} is no preset ({', '.join(MODELS)}) and no folder with a config.json",
            param="model",
        ) from error
    except ValueError as error:
        raise InvalidArgumentError(f"{path} is not JSON: {error}", param="model") from error
    return ModelSpec.from_config(Path(name).resolve().name, config)


def read_plan(path: Path) -> Plan:
    """A plan from its file."""
    return plan_from_mapping(_read_yaml("plan", str(path), ()))


def read_links(path: Path) -> tuple[tuple[str, str, Link], ...]:
    """Measured links from their file."""
    return links_from_mapping(_read_yaml("links", str(path), ()))


def read_workload(given: ProblemOptions) -> Workload:
    """A preset, perhaps at another rate, or mean lengths at a rate."""
    if not given.workload:
        return Workload.from_means(
            rate_rps=1.0 if given.rate is None else given.rate,
            prompt_tokens=given.prompt_tokens,
            output_tokens=given.output_tokens,
        )
    preset = workload_preset(given.workload)
    return preset if given.rate is None else preset.with_rate(given.rate)


def _read_yaml(option: str, name: str, presets: tuple[str, ...]) -> Any:
    """A YAML or JSON file."""
    try:
        return yaml.safe_load(Path(name).read_text(encoding="utf-8"))
    except OSError as error:
        preset = f"is no preset ({', '.join(presets)}) and " if presets else ""
        raise InvalidArgumentError(
            f"--{option} {name} {preset}cannot be read: {error.strerror}", param=option
        ) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        problem = " ".join(str(error).split())
        raise InvalidArgumentError(f"{name} is not YAML: {problem}", param=option) from error
