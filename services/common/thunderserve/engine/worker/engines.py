"""The engine a configuration asks for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from thunderserve.core.kv import KvLayout
from thunderserve.engine.emulated import EmulatedEngine, EmulatedTimes
from thunderserve.engine.model import read_model_shape
from thunderserve.engine.sglang.engine import SglangEngine
from thunderserve.engine.sglang.options import SglangOptions

if TYPE_CHECKING:
    from thunderserve.engine.emulated import KvPort
    from thunderserve.engine.worker.config import WorkerConfig

__all__ = ["emulated_engine", "sglang_engine"]


def sglang_engine(config: WorkerConfig) -> SglangEngine:
    """SGLang; raises ConfigError for a model folder without a usable `config.json`."""
    return SglangEngine(
        SglangOptions(
            model_path=config.model_path,
            device=config.device,
            tp=config.tp,
            pp=config.pp,
            page_size_tokens=config.page_size_tokens,
            max_total_tokens=config.max_total_tokens,
            max_running_requests=config.max_running_requests,
            chunked_prefill_tokens=config.chunked_prefill_tokens,
            cpu_threads=config.cpu_threads,
            kvlink_engine_socket=config.kvlink_engine_socket,
            prefix_cache=config.prefix_cache,
        )
    )


def emulated_engine(config: WorkerConfig, port: KvPort | None) -> EmulatedEngine:
    """The emulated engine, whose cache has `emulated_kv_ratio` of the model's layers."""
    model = read_model_shape(config.model_path)
    layout = KvLayout(
        model_fingerprint=f"emulated:{config.model_name}",
        layer_count=max(1, round(model.layers * config.emulated_kv_ratio)),
        kv_head_count=model.kv_heads,
        head_dim=model.head_dim,
        page_size_tokens=config.page_size_tokens,
        dtype=model.kv_dtype,
        tp=config.tp,
        pp=config.pp,
    )
    times = EmulatedTimes(
        prefill_s=lambda tokens: tokens * config.emulated_prefill_s_per_token,
        decode_step_s=lambda _: config.emulated_decode_s_per_step,
        start_s=config.emulated_start_s,
        flip_s=config.emulated_flip_s,
    )
    return EmulatedEngine(model, layout, times, port)
