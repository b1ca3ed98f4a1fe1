"""What a local fleet is made of."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from thunderserve.core.errors import ConfigError
from thunderserve.core.request import WireMode

__all__ = ["EngineName", "FleetOptions", "StoreName"]


class EngineName(StrEnum):
    """What computes the tokens."""

    SGLANG = "sglang"
    EMULATED = "emulated"


class StoreName(StrEnum):
    """Where control keeps its state."""

    ETCD = "etcd"
    MEMORY = "memory"


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetOptions:
    """What a local fleet is made of.

    Attributes:
        model: A folder with weights and tokenizer.
        prefill: Groups that begin in PREFILL.
        decode: Groups that begin in DECODE.
        reference: Also run one colocated engine outside the plan, to compare answers with.
        wire: How KV travels where a request does not say.
        redis: Run a Redis for the router's workload window.
        http_port: Of the OpenAI API; 0 is 8000, or any free one when that is taken.
        threads: Threads of each process's arithmetic.
        kv_tokens: KV cache of each engine, in tokens.
    """

    model: Path
    model_name: str
    engine: EngineName = EngineName.SGLANG
    device: str = "cpu"
    gpu_type: str = "CPU"
    prefill: int = 1
    decode: int = 2
    reference: bool = False
    wire: WireMode = WireMode.AUTO
    store: StoreName = StoreName.ETCD
    redis: bool = True
    http_port: int = 0
    threads: int = 1
    kv_tokens: int = 16384
    chunked_prefill_tokens: int = 256
    lease_ttl_s: float = 3.0

    def __post_init__(self) -> None:
        for name in ("prefill", "decode"):
            if getattr(self, name) < 1:
                raise ConfigError(f"--{name} is {getattr(self, name)}; it needs at least 1")

    @property
    def groups(self) -> tuple[str, ...]:
        """The groups of the plan; they keep their names when their phases change."""
        return tuple(f"g{number}" for number in range(self.prefill + self.decode))
