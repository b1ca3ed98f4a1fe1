"""The emulated engine that a configuration asks for."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from thunderserve.core.catalogue import catalogue
from thunderserve.core.cost import CostModel, Replica, StageHardware
from thunderserve.core.errors import ConfigError, InvalidArgumentError
from thunderserve.core.hardware import Link
from thunderserve.core.kv import KvLayout
from thunderserve.core.model import MODELS, ModelSpec
from thunderserve.engine.emulated import (
    Batching,
    CostTimes,
    EmulatedClock,
    EmulatedEngine,
    PlainTimes,
)
from thunderserve.engine.model import read_model_shape
from thunderserve.engine.worker.config import parse_gpus

if TYPE_CHECKING:
    from thunderserve.engine.emulated import EmulatedNetwork, EmulatedTimes, KvPort
    from thunderserve.engine.model import ModelShape
    from thunderserve.engine.worker.config import WorkerConfig

__all__ = ["emulated_engine", "emulated_layout"]

# Between the GPUs of one host.
_LOCAL_LATENCY_S = 1e-5
_LEAST_HEAD_DIM = 8


def emulated_engine(
    config: WorkerConfig, port: KvPort | None, network: EmulatedNetwork | None = None
) -> EmulatedEngine:
    """The engine; raises ConfigError for GPUs or a model that the cost model does not know."""
    model = read_model_shape(config.model_path)
    default = Batching()
    return EmulatedEngine(
        model,
        emulated_layout(config, model),
        _times(config, config.chunked_prefill_tokens or default.chunk_tokens),
        port,
        clock=EmulatedClock(config.emulated_speed),
        batching=Batching(
            config.chunked_prefill_tokens or default.chunk_tokens,
            config.max_running_requests or default.max_running,
        ),
        network=network,
        node_id=config.node_id,
    )


def emulated_layout(config: WorkerConfig, model: ModelShape) -> KvLayout:
    """A cache of `emulated_kv_ratio` times the model's volume, as near as whole numbers allow.

    Layers are left out first, then heads, then dimensions.
    """
    values = model.layers * model.kv_heads * model.head_dim * config.emulated_kv_ratio
    layers = max(1, round(values / (model.kv_heads * model.head_dim)))
    heads = min(model.kv_heads, max(1, round(values / (layers * model.head_dim))))
    dim = min(model.head_dim, max(_LEAST_HEAD_DIM, round(values / (layers * heads))))
    return KvLayout(
        model_fingerprint=f"emulated:{config.model_name}",
        layer_count=layers,
        kv_head_count=heads,
        head_dim=dim,
        page_size_tokens=config.page_size_tokens,
        dtype=model.kv_dtype,
        tp=config.tp,
        pp=config.pp,
    )


def _times(config: WorkerConfig, chunk_tokens: int) -> EmulatedTimes:
    if not config.emulated_profile:
        return PlainTimes(
            prefill_s_per_token=config.emulated_prefill_s_per_token,
            decode_s_per_step=config.emulated_decode_s_per_step,
            start_s=config.emulated_start_s,
            flip_s=config.emulated_flip_s,
        )
    spec = _spec(config)
    times = CostTimes(
        CostModel(spec),
        _replica(config, spec),
        chunk_tokens=chunk_tokens,
        start_s=config.emulated_start_s,
        flip_s=config.emulated_flip_s,
    )
    if not times.capacity_tokens:
        raise ConfigError(
            f"{', '.join(config.gpus)} cannot hold {spec.name} and any KV cache", param="gpus"
        )
    return times


def _replica(config: WorkerConfig, spec: ModelSpec) -> Replica:
    """The group's stages, layers spread evenly, as SGLang does."""
    types = catalogue(config.emulated_profile)
    gpus = [types.get(gpu.type) for gpu in parse_gpus(config.gpus)]
    local = Link(min(gpu.local_bytes_per_s for gpu in gpus), _LOCAL_LATENCY_S)
    return tuple(
        StageHardware(
            layers=spec.layers // config.pp + (stage < spec.layers % config.pp),
            gpus=tuple(gpus[stage * config.tp : (stage + 1) * config.tp]),
            link=local,
            next_link=local if stage + 1 < config.pp else None,
        )
        for stage in range(config.pp)
    )


def _spec(config: WorkerConfig) -> ModelSpec:
    """The model's real shape; the folder's may have another vocabulary."""
    if config.model_name in MODELS:
        return MODELS[config.model_name]
    text = (config.model_path / "config.json").read_text(encoding="utf-8")
    try:
        return ModelSpec.from_config(config.model_name, json.loads(text))
    except InvalidArgumentError as error:
        raise ConfigError(f"{config.model_path}: {error}", param="model_path") from error
