"""The configuration of a worker process."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from thunderserve.core.errors import ConfigError, InvalidArgumentError
from thunderserve.core.plan import Gpu, Phase
from thunderserve.engine.sglang.options import Device

__all__ = ["EngineKind", "WorkerConfig", "parse_gpus"]


class EngineKind(StrEnum):
    """What computes the tokens."""

    SGLANG = "sglang"
    EMULATED = "emulated"


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerConfig:
    """The keys that every worker has.

    Attributes:
        address: `host:port` to listen on.
        advertised_address: What routers and control call it by; empty is `address`.
        group_id: The group this process serves; also its name.
        gpus: `node/index:type` each, for example `n0/0:A40`.
        control_addresses: Every control replica; with none the worker belongs to no fleet.
        phase: What it serves first.
        kvlink_local_address: Where its sidecar serves it; may be empty where only COLOCATED runs.
        kvlink_engine_socket: The sidecar's socket for the engine.
        kvlink_advertised_address: `host:port` that other sidecars call this worker's sidecar by.
        max_total_tokens: Tokens of KV cache over all requests; 0 fills the memory.
        prefix_cache: Reuse the cache of shared prefixes; greedy answers may then differ in rounding
            from an engine that computes each prompt whole.
        cpu_threads: Threads of each rank where `device` is cpu.
        drain_timeout_s: How long requests in flight may take at a stop, or at a switch that does
            not say.
        emulated_profile: Hardware catalogue by which the emulated engine takes the time that `gpus`
            would; without one it takes the two times below.
        emulated_prefill_s_per_token: Of every prompt token.
        emulated_decode_s_per_step: Of every step of a batch.
        emulated_start_s: Of its start.
        emulated_flip_s: Of a change of phase.
        emulated_speed: Emulated seconds per real one; all of the above are emulated seconds.
        emulated_kv_ratio: Share of the real volume of KV bytes that it sends.
    """

    address: str
    group_id: str
    node_id: str
    gpus: tuple[str, ...]
    model_name: str
    model_path: Path
    phase: Phase
    advertised_address: str = ""
    control_addresses: tuple[str, ...] = ()
    engine: EngineKind = EngineKind.SGLANG
    device: Device = Device.CUDA
    kvlink_local_address: str = ""
    kvlink_engine_socket: str = ""
    kvlink_advertised_address: str = ""
    max_total_tokens: int = 0
    max_running_requests: int = 0
    chunked_prefill_tokens: int = 0
    prefix_cache: bool = False
    cpu_threads: int = 1
    tp: int = 1
    pp: int = 1
    page_size_tokens: int = 16
    drain_timeout_s: float = 30.0
    emulated_prefill_s_per_token: float = 0.0002
    emulated_decode_s_per_step: float = 0.02
    emulated_start_s: float = 0.0
    emulated_flip_s: float = 0.1
    emulated_profile: str = ""
    emulated_speed: float = 1.0
    emulated_kv_ratio: float = 1.0

    def __post_init__(self) -> None:
        for name in ("address", "group_id", "node_id", "model_name"):
            if not getattr(self, name):
                raise ConfigError(f"{name} is empty", param=name)
        for name in ("tp", "pp", "page_size_tokens", "cpu_threads"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}; it must be >= 1", param=name)
        for name in _NEVER_NEGATIVE:
            if not getattr(self, name) >= 0:
                raise ConfigError(f"{name} is {getattr(self, name)}; it must be >= 0", param=name)
        if not self.emulated_speed > 0:
            raise ConfigError(
                f"emulated_speed is {self.emulated_speed}; it must be > 0", param="emulated_speed"
            )
        if not 0 < self.emulated_kv_ratio <= 1:
            raise ConfigError(
                f"emulated_kv_ratio is {self.emulated_kv_ratio}; it must be in (0, 1]",
                param="emulated_kv_ratio",
            )
        self._check_gpus()
        self._check_kvlink()

    def _check_gpus(self) -> None:
        gpus = parse_gpus(self.gpus)
        if len(gpus) != self.tp * self.pp:
            raise ConfigError(
                f"gpus names {len(gpus)}; tp {self.tp} times pp {self.pp} needs "
                f"{self.tp * self.pp}",
                param="gpus",
            )
        if stray := [gpu.id for gpu in gpus if gpu.node != self.node_id]:
            raise ConfigError(
                f"gpus names {stray[0]}, which is not on node {self.node_id}", param="gpus"
            )

    def _check_kvlink(self) -> None:
        if self.phase is Phase.COLOCATED:
            return
        for name in ("kvlink_local_address", "kvlink_engine_socket", "kvlink_advertised_address"):
            if not getattr(self, name):
                raise ConfigError(
                    f"{name} is empty; phase {self.phase} needs a kvlink sidecar", param=name
                )


_NEVER_NEGATIVE = (
    "max_total_tokens",
    "max_running_requests",
    "chunked_prefill_tokens",
    "drain_timeout_s",
    "emulated_prefill_s_per_token",
    "emulated_decode_s_per_step",
    "emulated_start_s",
    "emulated_flip_s",
)


def parse_gpus(entries: tuple[str, ...]) -> tuple[Gpu, ...]:
    """GPUs from `node/index:type`; raises ConfigError for another form."""
    gpus = []
    for entry in entries:
        gpu_id, _, kind = entry.partition(":")
        try:
            gpu = Gpu(gpu_id, kind)
        except InvalidArgumentError as error:
            raise ConfigError(f"gpus has {entry!r}: {error}", param="gpus") from error
        if not kind:
            raise ConfigError(
                f"gpus has {entry!r}; it must be node/index:type, for example n0/0:A40",
                param="gpus",
            )
        gpus.append(gpu)
    return tuple(gpus)
