"""Settings of the control plane."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

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
        planned_prompt_tokens: Mean prompt length to plan for.
        planned_output_tokens: Mean answer length to plan for.
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
    planned_prompt_tokens: float = 512.0
    planned_output_tokens: float = 128.0

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
        for name in (*positive, "leader_ttl_s"):
            if getattr(self, name) <= 0:
                raise ConfigError(f"{name} is {getattr(self, name)}; it must be > 0", param=name)
        if not 0 < self.heartbeat_interval_s <= self.lease_ttl_s / 2:
            raise ConfigError(
                f"heartbeat_interval_s is {self.heartbeat_interval_s}; it must be in "
                f"(0, lease_ttl_s / 2], and lease_ttl_s is {self.lease_ttl_s}",
                param="heartbeat_interval_s",
            )

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
