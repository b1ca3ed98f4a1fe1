"""Files that the command line names; what cannot be read is said in one line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import yaml

from thunderserve.core.cluster_file import cluster_from_mapping, links_from_mapping
from thunderserve.core.errors import InvalidArgumentError
from thunderserve.core.model import MODELS, ModelSpec
from thunderserve.core.plan_file import plan_from_mapping
from thunderserve.core.trace_file import read_trace_text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from thunderserve.core.hardware import Cluster, Link
    from thunderserve.core.plan import Plan
    from thunderserve.core.trace import Trace

__all__ = [
    "read_cluster_file",
    "read_links",
    "read_model_folder",
    "read_plan",
    "read_trace_file",
]

_Read = TypeVar("_Read")


def read_cluster_file(name: str, profile: str, presets: Iterable[str]) -> Cluster:
    """A cluster from YAML or JSON; a profile replaces the file's own."""
    mapping = _read_yaml("cluster", name, presets)
    if profile and isinstance(mapping, dict):
        mapping["profile"] = profile
    return _in_file(name, cluster_from_mapping, mapping)


def read_links(path: Path) -> tuple[tuple[str, str, Link], ...]:
    """Measured links."""
    return _in_file(str(path), links_from_mapping, _read_yaml("links", str(path)))


def read_plan(path: Path) -> Plan:
    """A plan, as `plan -o json` or `-o yaml` writes it."""
    return _in_file(str(path), plan_from_mapping, _read_yaml("plan", str(path)))


def read_trace_file(name: str, presets: Iterable[str]) -> Trace:
    """A trace in one of the formats of `core.trace_file`."""
    return read_trace_text(name, _read_text("workload", name, presets))


def read_model_folder(name: str) -> ModelSpec:
    """The model whose `config.json` is in a folder."""
    path = Path(name) / "config.json"
    if not path.is_file():
        raise InvalidArgumentError(
            f"--model {name} is no preset ({', '.join(MODELS)}) and no folder with a config.json",
            param="model",
        )
    text = _read_text("model", str(path))
    try:
        config = json.loads(text)
    except ValueError as error:
        raise InvalidArgumentError(f"{path} is not JSON: {error}", param="model") from error
    if not isinstance(config, dict):
        raise InvalidArgumentError(f"{path} holds no JSON object", param="model")
    return ModelSpec.from_config(Path(name).resolve().name, config)


def _in_file(name: str, convert: Callable[[Any], _Read], mapping: Any) -> _Read:
    """What is wrong in a mapping is said to be in this file."""
    try:
        return convert(mapping)
    except InvalidArgumentError as error:
        raise InvalidArgumentError(f"{name}: {error}", param=error.param) from error


def _read_yaml(option: str, name: str, presets: Iterable[str] = ()) -> Any:
    """A YAML or JSON file."""
    text = _read_text(option, name, presets)
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        problem = " ".join(str(error).split())
        raise InvalidArgumentError(f"{name} is not YAML: {problem}", param=option) from error


def _read_text(option: str, name: str, presets: Iterable[str] = ()) -> str:
    preset = f"is no preset ({', '.join(presets)}) and " if presets else ""
    try:
        return Path(name).read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise InvalidArgumentError(f"--{option} {name} {preset}is no file", param=option) from error
    except OSError as error:
        raise InvalidArgumentError(
            f"--{option} {name} {preset}cannot be read: {error.strerror}", param=option
        ) from error
    except UnicodeDecodeError as error:
        raise InvalidArgumentError(f"{name} is not UTF-8 text: {error}", param=option) from error
