"""The router's configuration."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from thunderserve.core.errors import ConfigError

__all__ = ["RouterConfig"]


@dataclass(frozen=True, slots=True)
class RouterConfig:
    """One router.

    Attributes:
        address: `host:port` of its gRPC server.
        http_address: `host:port` of its OpenAI-compatible HTTP server.
        advertised_address: `host:port` where others reach the gRPC server; empty is `address`.
        router_id: Its name in the fleet.
        control_addresses: `host:port` of every control replica.
        model_name: What clients call the model.
        model_path: Folder with tokenizer.json, tokenizer_config.json and config.json.
        fleet: Names the Redis stream of finished requests.
        redis_url: Where finished requests are written; none keeps them in memory.
        max_in_flight: Requests at once; one more is refused with 429.
        max_retries: Other pairs that one request may try.
        max_body_bytes: Longest HTTP request body; a longer one is refused with 413.
        request_timeout_s: Longest time that one request may take.
        suspect_s: How long a worker that could not be reached is avoided.
        drain_s: How long running requests get to finish when the router stops.
    """

    address: str
    http_address: str
    control_addresses: tuple[str, ...]
    model_name: str
    model_path: Path
    router_id: str = "r0"
    advertised_address: str = ""
    fleet: str = "demo"
    redis_url: str | None = None
    max_in_flight: int = 256
    max_retries: int = 3
    max_body_bytes: int = 8 * 1024 * 1024
    request_timeout_s: float = 600.0
    suspect_s: float = 2.0
    drain_s: float = 5.0

    def __post_init__(self) -> None:
        if not self.control_addresses:
            raise ConfigError("control_addresses is empty", param="control_addresses")
        for name in ("max_in_flight", "max_body_bytes", "request_timeout_s"):
            if (value := getattr(self, name)) <= 0:
                raise ConfigError(f"{name} is {value}; it must be positive", param=name)
        for name in ("max_retries", "suspect_s", "drain_s"):
            if (value := getattr(self, name)) < 0:
                raise ConfigError(f"{name} is {value}; it must not be negative", param=name)
