"""What a sidecar tells an engine."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from thunderserve.kvlink.protocol import Block

__all__ = ["EngineEvents"]


class EngineEvents(Protocol):
    """What the sidecar tells an engine; called in the reader thread, and must not block for long.

    After `on_committed` or `on_failed` nothing more is told of a room.
    """

    def on_reserved(self, room: int, page_count: int) -> None:
        """Prefill: a decode side waits for this room's pages."""

    def on_pages(self, room: int, block: Block, values: npt.NDArray[np.uint16]) -> None:
        """Decode: part of the cache came.

        Args:
            room: The room.
            block: Where in the room the values belong: layers and heads are the whole model's.
            values: (layers, keys|values, pages, page tokens, kv heads, head dim), uint16 bit
                patterns of the layout's dtype; valid during the call alone.
        """

    def on_aux(self, room: int, aux: bytes) -> None:
        """Decode: the prefill engine's own data came, as it was sent."""

    def on_committed(self, room: int) -> None:
        """Everything has arrived: told to both sides."""

    def on_failed(self, room: int, reason: str) -> None:
        """The room is lost: told to both sides, also for the engine's own `abort`.

        The room may be one that this engine has not heard of: its request is still to come.
        """
