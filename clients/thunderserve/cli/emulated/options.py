"""What an emulated fleet is made of."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from thunderserve.core.errors import ConfigError

__all__ = ["EmulatedOptions", "KvlinkKind"]


class KvlinkKind(StrEnum):
    """How KV bytes get from one emulated engine to another.

    REAL: through kvlink's sidecars, sockets and codec, on top of the time that the links take.
    MODELLED: they are handed over in memory after the time that the links take.
    """

    REAL = "real"
    MODELLED = "modelled"


@dataclass(frozen=True, slots=True, kw_only=True)
class EmulatedOptions:
    """What an emulated fleet is made of.

    Attributes:
        cluster: A preset's name, or a YAML file.
        model: A preset's name.
        workload: What is planned for: a preset's name, or a trace's file.
        rate_rps: Requests per second planned for; None is the workload's own.
        plan: A plan file; None plans for the cluster and the workload.
        profile: Hardware catalogue; empty is the cluster's own.
        speed: Emulated seconds per real one.
        kvlink: How KV bytes travel.
        http_port: Of the OpenAI API; 0 is 8000, or any free one when that is taken.
        kv_ratio: Share of the real volume of KV bytes that engines make and check.
        flip_s: Emulated seconds of a change of phase.
        context_tokens: Prompt and answer together.
        control_addresses: Of control replicas that run elsewhere; empty starts one with the fleet.
    """

    cluster: str = "paper-cloud-32"
    model: str = "llama-30b"
    workload: str = "azure-conv"
    rate_rps: float | None = None
    plan: Path | None = None
    profile: str = ""
    speed: float = 1.0
    kvlink: KvlinkKind = KvlinkKind.REAL
    http_port: int = 0
    kv_ratio: float = 2e-5
    flip_s: float = 0.5
    context_tokens: int = 16384
    control_addresses: tuple[str, ...] = ()
    lease_ttl_s: float = 3.0
    heartbeat_interval_s: float = 0.5

    def __post_init__(self) -> None:
        if not self.speed > 0:
            raise ConfigError(f"--speed is {self.speed}; it must be > 0", param="speed")
