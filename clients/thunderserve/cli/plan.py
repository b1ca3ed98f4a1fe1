"""`thunderserve plan`: groups, phases and routes for a cluster, a model and a workload."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from thunderserve.control.planner.presets import CLUSTERS, cluster_preset
from thunderserve.control.planner.problem import Problem
from thunderserve.control.planner.solve import solve
from thunderserve.core.cluster_file import cluster_from_mapping
from thunderserve.core.errors import InvalidArgumentError
from thunderserve.core.model import MODELS, ModelSpec, model_preset
from thunderserve.core.slo import Slo
from thunderserve.core.workload import Workload, workload_preset

if TYPE_CHECKING:
    from thunderserve.core.hardware import Cluster
    from thunderserve.core.plan import Plan

__all__ = ["PlanInputs", "compute_plan", "read_cluster", "read_model", "read_workload"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanInputs:
    """What the command line says.

    Attributes:
        cluster: A preset's name, or a YAML or JSON file.
        model: A preset's name, or a folder with `config.json`.
        workload: A preset's name; empty takes the mean lengths.
        rate_rps: Requests per second; 0 is the preset's own.
    """

    cluster: str
    model: str
    workload: str
    rate_rps: float
    prompt_tokens: float
    output_tokens: float
    slo: Slo
    seed: int
    time_budget_s: float


def compute_plan(inputs: PlanInputs) -> Plan:
    """Search for a plan.

    Raises:
        InvalidArgumentError: An input is wrong, or no group of GPUs holds the model.
    """
    problem = Problem(
        cluster=read_cluster(inputs.cluster),
        model=read_model(inputs.model),
        workload=read_workload(inputs),
        slo=inputs.slo,
    )
    return solve(
        problem, seed=inputs.seed, time_budget_s=inputs.time_budget_s, clock=time.monotonic
    )


def read_cluster(name: str) -> Cluster:
    """A preset, or what a file describes."""
    if name in CLUSTERS:
        return cluster_preset(name)
    try:
        mapping = yaml.safe_load(Path(name).read_text(encoding="utf-8"))
    except OSError as error:
        raise InvalidArgumentError(
            f"--cluster {name} is no preset ({', '.join(CLUSTERS)}) and no file that can be read: "
            f"{error.strerror}",
            param="cluster",
        ) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        problem = " ".join(str(error).split())
        raise InvalidArgumentError(f"{name} is not YAML: {problem}", param="cluster") from error
    return cluster_from_mapping(mapping)


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


def read_workload(inputs: PlanInputs) -> Workload:
    """A preset, perhaps at another rate, or mean lengths at a rate."""
    if not inputs.workload:
        return Workload.from_means(
            rate_rps=inputs.rate_rps or 1.0,
            prompt_tokens=inputs.prompt_tokens,
            output_tokens=inputs.output_tokens,
        )
    preset = workload_preset(inputs.workload)
    return preset.with_rate(inputs.rate_rps) if inputs.rate_rps else preset
