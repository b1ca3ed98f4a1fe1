"""What the fleet serves, as its configuration says: the model, the workload, the bounds."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

from thunderserve.control.planner.live import NO_BOUNDS, NOMINAL_NETWORK
from thunderserve.control.planning import LivePlanner
from thunderserve.core.catalogue import PROFILES
from thunderserve.core.errors import ConfigError, InvalidArgumentError
from thunderserve.core.model import MODELS, ModelSpec
from thunderserve.core.slo import Slo
from thunderserve.core.workload import Workload, workload_preset
from thunderserve.demo_model import MODEL_NAME as DEMO_MODEL_NAME
from thunderserve.demo_model import model_path as demo_model_path

if TYPE_CHECKING:
    from thunderserve.control.config import ControlConfig

__all__ = ["model_of", "planned_workload", "planner_of"]


def planner_of(config: ControlConfig) -> LivePlanner:
    """The planner for what the configuration says.

    Raises:
        ConfigError: The model or the workload is unknown.
    """
    return LivePlanner(
        model_of(config),
        planned_workload(config),
        Slo(config.slo_ttft_s, config.slo_tpot_s) if config.slo_ttft_s else NO_BOUNDS,
        PROFILES[config.gpu_profile],
        replace(NOMINAL_NETWORK, bytes_per_s=config.nominal_bytes_per_s),
    )


def planned_workload(config: ControlConfig) -> Workload:
    """What is expected to arrive until something else does."""
    if not config.planned_workload:
        return Workload.from_means(
            rate_rps=config.planned_rate_rps,
            prompt_tokens=config.planned_prompt_tokens,
            output_tokens=config.planned_output_tokens,
        )
    try:
        preset = workload_preset(config.planned_workload)
    except InvalidArgumentError as error:
        raise ConfigError(str(error), param="planned_workload") from error
    return preset.with_rate(config.planned_rate_rps)


def model_of(config: ControlConfig) -> ModelSpec:
    """The model's shape: from its folder, or by its name.

    Raises:
        ConfigError: The name is unknown, or the folder has no readable shape.
    """
    name, path = config.model_name, config.model_path
    if path is None and name == DEMO_MODEL_NAME:
        path = demo_model_path()
    if path is None:
        if name in MODELS:
            return MODELS[name]
        raise ConfigError(
            f"the shape of model {name!r} is unknown; set model_path to the folder with its "
            "config.json",
            param="model_path",
        )
    try:
        text = (path / "config.json").read_text(encoding="utf-8")
        return ModelSpec.from_config(name, json.loads(text))
    except OSError as error:
        raise ConfigError(f"cannot read {path}/config.json: {error.strerror}") from error
    except (ValueError, InvalidArgumentError) as error:
        raise ConfigError(f"{path}/config.json does not describe a model: {error}") from error
