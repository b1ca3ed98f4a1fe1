"""The sidecar's configuration."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from thunderserve.core.errors import ConfigError
from thunderserve.core.request import WireMode

__all__ = ["KvlinkConfig"]

_EVERYWHERE = ("0.0.0.0", "[::]", "")  # noqa: S104 - recognised here, not bound


@dataclass(frozen=True, slots=True, kw_only=True)
class KvlinkConfig:
    """Addresses and limits.

    Attributes:
        address: `host:port` of the PeerService, for other sidecars.
        advertised_address: The same as peers reach it; `address` when empty.
        bulk_address: `host:port` for frames.
        advertised_bulk_address: The same as peers reach it; `bulk_address` when empty.
        local_address: `unix:/path` of the LocalService, for this sidecar's worker.
        engine_socket: Path of the engine's Unix socket.
        wire_mode: Of rooms whose request does not say.
        max_rooms: Transfers open at once; more are refused.
        max_frame_bytes: 16-bit bytes of one frame.
        buffer_count: Frames held in memory at once, sending and receiving each.
        transfer_timeout_s: From the first word about a room to its end.
        forget_after_s: How long an ended room can still be asked about.
    """

    local_address: str
    engine_socket: Path
    address: str = "127.0.0.1:7400"
    advertised_address: str = ""
    bulk_address: str = "127.0.0.1:7401"
    advertised_bulk_address: str = ""
    wire_mode: WireMode = WireMode.INT4
    max_rooms: int = 512
    max_frame_bytes: int = 4 * 1024 * 1024
    buffer_count: int = 8
    transfer_timeout_s: float = 120.0
    forget_after_s: float = 60.0

    def __post_init__(self) -> None:
        if not self.local_address.startswith("unix:"):
            raise ConfigError(
                f"local_address is {self.local_address!r}; it must be unix:/path",
                param="local_address",
            )
        if self.wire_mode is WireMode.DEFAULT:
            raise ConfigError("wire_mode is default; choose int4 or raw16", param="wire_mode")
        for name in ("max_rooms", "max_frame_bytes", "buffer_count", "transfer_timeout_s"):
            if getattr(self, name) <= 0:
                raise ConfigError(f"{name} is {getattr(self, name)}; it must be > 0", param=name)
        for name in ("address", "bulk_address"):
            self._check_address(name)

    @property
    def peer_address(self) -> str:
        """Where peers reach the PeerService."""
        return self.advertised_address or self.address

    @property
    def peer_bulk_address(self) -> str:
        """Where peers send frames."""
        return self.advertised_bulk_address or self.bulk_address

    def _check_address(self, name: str) -> None:
        value = getattr(self, name)
        host, colon, port = value.rpartition(":")
        if not colon or not port.isdecimal():
            raise ConfigError(f"{name} is {value!r}; it must be host:port", param=name)
        if host in _EVERYWHERE and not getattr(self, f"advertised_{name}"):
            raise ConfigError(
                f"{name} is {value!r}, which no peer can dial; set advertised_{name}", param=name
            )
