"""The phases a worker can serve: found by entry point, so that a phase is a package of its own."""

from __future__ import annotations

from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Protocol

from thunderserve.core.errors import ConfigError

if TYPE_CHECKING:
    import grpc

    from thunderserve.core.plan import Phase
    from thunderserve.engine.host import EngineHost

__all__ = ["PHASES_GROUP", "PhaseService", "discover_phases"]

PHASES_GROUP = "thunderserve.phases"


class PhaseService(Protocol):
    """How one phase's legs reach the host."""

    @property
    def phase(self) -> Phase:
        """Which phase it is."""

    def register(self, server: grpc.aio.Server, host: EngineHost) -> None:
        """Add the phase's gRPC service; the host decides, leg by leg, whether it is the phase's."""


def discover_phases() -> tuple[PhaseService, ...]:
    """Every installed phase.

    Raises:
        ConfigError: None is installed, so that the worker could serve nothing.
    """
    found = tuple(point.load() for point in entry_points(group=PHASES_GROUP))
    if not found:
        raise ConfigError(
            f"no entry points of group {PHASES_GROUP}: the package's metadata is stale; "
            "reinstall thunderserve"
        )
    return found
