"""The SGLang engine that a configuration asks for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from thunderserve.engine.sglang.engine import SglangEngine
from thunderserve.engine.sglang.options import SglangOptions

if TYPE_CHECKING:
    from thunderserve.engine.worker.config import WorkerConfig

__all__ = ["sglang_engine"]


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
