"""What a worker asks of an inference engine, and of the sidecar beside it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from thunderserve.core.errors import EngineFailedError
    from thunderserve.core.fleet import Capabilities
    from thunderserve.core.links import LinkMeasurement
    from thunderserve.core.plan import Phase
    from thunderserve.core.request import (
        DecodeLeg,
        PrefillLeg,
        TokenChunk,
        TransferReport,
        WireMode,
    )

__all__ = ["Engine", "KvLink"]


class Engine(Protocol):
    """One copy of the model in one phase; the weights are loaded by `start` and stay."""

    @property
    def capabilities(self) -> Capabilities:
        """What this engine can do; final once `start` has returned."""

    @property
    def weight_loads(self) -> int:
        """Times weights were loaded since the process started: 1 after `start` and every flip."""

    async def start(self, phase: Phase) -> None:
        """Load the weights and be ready to serve `phase`.

        Raises:
            EngineFailedError: The engine did not come up; the message says why.
        """

    async def wait_failed(self) -> EngineFailedError:
        """Why the engine was lost; waits for ever while it is well."""

    def prefill(self, leg: PrefillLeg) -> AsyncGenerator[int, None]:
        """The first token, as soon as it is known; ends when the prompt's cache is handed over.

        Closing the iterator early frees the request's resources.

        Raises:
            TransferError: The decode side did not take the cache.
            InvalidArgumentError: The prompt does not fit.
        """

    def decode(self, leg: DecodeLeg) -> AsyncGenerator[TokenChunk, None]:
        """Every token of the answer, the first one included.

        Without a transfer in `leg` the engine must be colocated and computes the prompt itself.
        Closing the iterator early frees the request's resources.

        Raises:
            TransferError: The cache did not arrive.
            InvalidArgumentError: Prompt and answer do not fit.
        """

    async def switch(self, phase: Phase) -> None:
        """Change the phase; the weights stay.

        Raises:
            EngineBusyError: Not idle; nothing was changed, ask again.
            PreconditionError: This engine cannot change its phase so; nothing was changed.
            EngineFailedError: The engine is lost.
        """

    async def stop(self) -> None:
        """End the engine and free everything; safe to call twice, and while `start` runs."""


class KvLink(Protocol):
    """The worker's view of its own kvlink sidecar."""

    async def announce(self, room: int, wire_mode: WireMode) -> None:
        """Choose how a room's KV will travel; call it before the engine sees the request."""

    async def report(self, room: int) -> TransferReport:
        """What the room's transfer took; waits until it has ended.

        Raises:
            TransferError: It was aborted; the message says why.
            NotFoundError: The sidecar never heard of the room.
        """

    async def links(self) -> tuple[LinkMeasurement, ...]:
        """The links from the sidecar to others, as far as they were measured; never fails."""
