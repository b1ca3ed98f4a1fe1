"""Settings of the control plane."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from thunderserve.control.monitor.policy import Rescheduling
from thunderserve.control.planner.live import NOMINAL_NETWORK
from thunderserve.core.catalogue import PROFILES
from thunderserve.core.errors import ConfigError

__all__ = ["ControlConfig", "StoreKind"]


class StoreKind(StrEnum):
    """Where plans are kept: `memory` forgets them when the process ends."""

    MEMORY = "memory"
    ETCD = "etcd"


@dataclass(frozen=True, slots=True)
class ControlConfig:
    """See `thunderserve control --help` for how to set these.

    Attributes:
        address: `host:port` to serve gRPC on.
        model_name: What every worker must serve.
        model_path: Folder with the model's `config.json`; empty where the name is known.
        advertised_address: How others reach this replica; empty for `address`.
        fleet: Separates the keys of fleets that share a store.
        etcd_endpoints: `host:port` of the members of the etcd cluster.
        etcd_ca_file: Whom to trust as etcd, PEM; empty is plain text.
        etcd_cert_file: Our certificate, PEM, where etcd asks clients for one.
        etcd_key_file: Its key, PEM.
        etcd_user: Empty where etcd asks for none.
        etcd_password_file: A file that holds the user's password.
        lease_ttl_s: A member that is not heard for so long is lost.
        leader_ttl_s: A leader that is not heard for so long is replaced.
        heartbeat_interval_s: How often members are to be heard.
        expected_workers: The first plan waits for so many.
        planned_rate_rps: Requests per second to plan for.
        planned_workload: The preset to plan for; empty for means alone.
        planned_prompt_tokens: Mean prompt length to plan for, without a preset.
        planned_output_tokens: Mean answer length to plan for, without a preset.
        slo_ttft_s: Bound on the first token; 0 sets none, and routes then balance load.
        slo_tpot_s: Bound on every later token; set with the other.
        gpu_profile: Which figures of GPUs count: `tensor_dense` or `paper_table1`.
        nominal_bytes_per_s: Of a node's network, where its links were not measured.
        redis_url: Where routers write finished requests; empty: the workload is not watched.
        rescheduling: What changes by itself with workload and fleet: `off`, `routes`, `flips`.
        window_s: How long the newest requests count.
        cool_down_s: Nothing changes by itself for so long after a change.
        flips_per_hour: By itself, at most.
        least_gain_ratio: Of requests in time, for a change by itself.
        capacity_floor_ratio: Of what is served now, that a flip must leave while it lasts.
    """

    address: str
    model_name: str
    model_path: Path | None = None
    advertised_address: str = ""
    fleet: str = "demo"
    store: StoreKind = StoreKind.MEMORY
    etcd_endpoints: tuple[str, ...] = ()
    etcd_ca_file: Path | None = None
    etcd_cert_file: Path | None = None
    etcd_key_file: Path | None = None
    etcd_user: str = ""
    etcd_password_file: Path | None = None
    lease_ttl_s: float = 3.0
    leader_ttl_s: float = 2.0
    heartbeat_interval_s: float = 0.5
    expected_workers: int = 1
    planned_rate_rps: float = 1.0
    planned_workload: str = ""
    planned_prompt_tokens: float = 512.0
    planned_output_tokens: float = 128.0
    slo_ttft_s: float = 0.0
    slo_tpot_s: float = 0.0
    gpu_profile: str = "tensor_dense"
    nominal_bytes_per_s: float = NOMINAL_NETWORK.bytes_per_s
    redis_url: str = ""
    rescheduling: Rescheduling = Rescheduling.FLIPS
    window_s: float = 60.0
    cool_down_s: float = 60.0
    flips_per_hour: int = 12
    least_gain_ratio: float = 0.05
    capacity_floor_ratio: float = 0.0

    def __post_init__(self) -> None:
        self._check_etcd()
        if not self.fleet or "/" in self.fleet:
            raise ConfigError(
                f"fleet is {self.fleet!r}; it must be a name without /", param="fleet"
            )
        if self.expected_workers < 1:
            raise ConfigError(
                f"expected_workers is {self.expected_workers}; it must be at least 1",
                param="expected_workers",
            )
        positive = ("planned_rate_rps", "planned_prompt_tokens", "planned_output_tokens")
        for name in (*positive, "leader_ttl_s", "window_s", "nominal_bytes_per_s"):
            if getattr(self, name) <= 0:
                raise ConfigError(f"{name} is {getattr(self, name)}; it must be > 0", param=name)
        if not 0 < self.heartbeat_interval_s <= self.lease_ttl_s / 2:
            raise ConfigError(
                f"heartbeat_interval_s is {self.heartbeat_interval_s}; it must be in "
                f"(0, lease_ttl_s / 2], and lease_ttl_s is {self.lease_ttl_s}",
                param="heartbeat_interval_s",
            )

        self._check_monitor()
        if not 0 <= self.capacity_floor_ratio <= 1:
            raise ConfigError(
                f"capacity_floor_ratio is {self.capacity_floor_ratio}; it must be in [0, 1]",
                param="capacity_floor_ratio",
            )

    def _check_monitor(self) -> None:
        if (self.slo_ttft_s > 0) != (self.slo_tpot_s > 0) or min(
            self.slo_ttft_s, self.slo_tpot_s
        ) < 0:
            raise ConfigError(
                f"slo_ttft_s is {self.slo_ttft_s} and slo_tpot_s {self.slo_tpot_s}; set both above "
                "0, or neither",
                param="slo_ttft_s",
            )
        if self.gpu_profile not in PROFILES:
            raise ConfigError(
                f"gpu_profile is {self.gpu_profile!r}; there are {', '.join(PROFILES)}",
                param="gpu_profile",
            )
        for name in ("cool_down_s", "flips_per_hour", "least_gain_ratio"):
            if getattr(self, name) < 0:
                raise ConfigError(f"{name} is {getattr(self, name)}; it must be >= 0", param=name)

    def _check_etcd(self) -> None:
        if self.store is StoreKind.ETCD and not self.etcd_endpoints:
            raise ConfigError(
                "store is 'etcd', but etcd_endpoints is empty; name at least one host:port",
                param="etcd_endpoints",
            )
        if (self.etcd_cert_file is None) != (self.etcd_key_file is None):
            raise ConfigError("set etcd_cert_file and etcd_key_file, or neither")
        if self.etcd_cert_file is not None and self.etcd_ca_file is None:
            raise ConfigError("etcd_cert_file without etcd_ca_file", param="etcd_ca_file")
        if bool(self.etcd_user) != (self.etcd_password_file is not None):
            raise ConfigError("set etcd_user and etcd_password_file, or neither")
