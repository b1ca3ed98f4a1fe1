"""The sidecar's configuration."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from thunderserve.core.errors import ConfigError
from thunderserve.core.request import WireMode
from thunderserve.kvlink.links import Bulk

__all__ = ["KvlinkConfig"]

_POSITIVE = (
    "max_rooms",
    "max_frame_bytes",
    "buffer_count",
    "stall_timeout_s",
    "transfer_timeout_s",
)
_EVERYWHERE = ("0.0.0.0", "[::]", "")  # noqa: S104 - recognised here, not bound


@dataclass(frozen=True, slots=True, kw_only=True)
class KvlinkConfig:
    """Addresses and limits.

    Attributes:
        address: `host:port` for other sidecars: all that this process listens on beyond this host.
        advertised_address: The same as peers reach it; `address` when empty.
        identity: Folder of this sidecar's certificate and key, from `thunderctl pki issue`.
        local_address: `unix:/path` of the LocalService, for this sidecar's worker.
        engine_socket: Path of the engine's Unix socket.
        bulk: How this sidecar sends frames: `tcp`, or `grpc` where only gRPC gets through.
        wire_mode: Of rooms whose request does not say; `auto` is what finishes first on the link.
        coarsest_mode: The mode with the fewest bits that `auto` may choose.
        max_rooms: Transfers open at once; more are refused.
        max_frame_bytes: 16-bit bytes of one frame.
        buffer_count: Slots of memory shared with each rank of the engine, and frames of peers held
            at once.
        stall_timeout_s: A frame of which no byte comes for so long fails its room.
        transfer_timeout_s: From the first word about a room to its end.
        forget_after_s: How long an ended room can still be asked about.
        probe_after_s: A link whose rate no transfer has told for so long is probed while it is
            idle; 0: only when the worker asks.
    """

    local_address: str
    engine_socket: Path
    identity: Path
    address: str = "127.0.0.1:7400"
    advertised_address: str = ""
    bulk: Bulk = Bulk.TCP
    wire_mode: WireMode = WireMode.AUTO
    coarsest_mode: WireMode = WireMode.INT4
    max_rooms: int = 512
    max_frame_bytes: int = 4 * 1024 * 1024
    buffer_count: int = 8
    stall_timeout_s: float = 10.0
    transfer_timeout_s: float = 120.0
    forget_after_s: float = 60.0
    probe_after_s: float = 300.0

    def __post_init__(self) -> None:
        if not self.local_address.startswith("unix:"):
            raise ConfigError(
                f"local_address is {self.local_address!r}; it must be unix:/path",
                param="local_address",
            )
        if self.wire_mode is WireMode.DEFAULT:
            raise ConfigError("wire_mode is default; choose auto, int4 or raw16", param="wire_mode")
        if self.coarsest_mode not in {WireMode.INT4, WireMode.RAW16}:
            raise ConfigError(
                f"coarsest_mode is {self.coarsest_mode}; choose int4 or raw16",
                param="coarsest_mode",
            )
        for name in _POSITIVE:
            if getattr(self, name) <= 0:
                raise ConfigError(f"{name} is {getattr(self, name)}; it must be > 0", param=name)
        if self.probe_after_s < 0:
            raise ConfigError(
                f"probe_after_s is {self.probe_after_s}; it must be >= 0", param="probe_after_s"
            )
        self._check_address()

    @property
    def peer_address(self) -> str:
        """Where peers reach this sidecar."""
        return self.advertised_address or self.address

    @property
    def local_socket(self) -> Path:
        """The path of `local_address`."""
        return Path(self.local_address.removeprefix("unix:"))

    @property
    def peer_socket(self) -> Path:
        """Where this process's own port hands gRPC to its own server."""
        return self.engine_socket.with_name(f"{self.engine_socket.name}.peers")

    def _check_address(self) -> None:
        host, colon, port = self.address.rpartition(":")
        if not colon or not port.isdecimal():
            raise ConfigError(f"address is {self.address!r}; it must be host:port", param="address")
        if host in _EVERYWHERE and not self.advertised_address:
            raise ConfigError(
                f"address is {self.address!r}, which no peer can dial; set advertised_address",
                param="address",
            )
