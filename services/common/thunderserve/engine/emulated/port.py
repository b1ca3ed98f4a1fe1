"""What the emulated engine asks of whoever moves KV bytes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from thunderserve.core.kv import KvLayout
    from thunderserve.core.plan import Phase

__all__ = ["KvPort"]


class KvPort(Protocol):
    """Moves the KV cache of rooms; cancelling a call ends its room on both sides."""

    async def open(self, phase: Phase, layout: KvLayout) -> None:
        """Be ready for an engine in that phase; again at every change of phase.

        Raises:
            UnavailableError: The sidecar cannot be reached, or refused the layout.
        """

    async def wait_reserved(self, room: int) -> None:
        """Prefill: until the decode side has memory for the room.

        Raises:
            TransferError: The decode side gave it up, or did not come.
        """

    async def send(self, room: int, values: npt.NDArray[np.uint16], aux: bytes) -> None:
        """Send a room's cache; returns when the decode side has it.

        Args:
            room: Of the request.
            values: (layers, keys|values, pages, page tokens, kv heads, head dim), uint16 bits.
            aux: What only the engines understand.

        Raises:
            TransferError: The decode side did not take it.
        """

    async def receive(
        self, room: int, peer_address: str, page_count: int
    ) -> tuple[npt.NDArray[np.uint16], bytes]:
        """Fetch a room's cache and aux from the group whose sidecar is at `peer_address`.

        Raises:
            TransferError: It did not arrive.
        """

    def abort(self, room: int, reason: str) -> None:
        """End a room that this side will not go on with; harmless for one that has ended."""

    async def close(self) -> None:
        """End what is open; safe to call twice."""
