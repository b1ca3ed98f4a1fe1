"""An engine's connection while it lasts: the socket, and the slots that came with it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from thunderserve.kvlink.engine_slots import EngineSlots
from thunderserve.kvlink.engine_socket import EngineSocket
from thunderserve.kvlink.protocol.message import Message, MessageKind

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy.typing as npt

    from thunderserve.core.kv import KvLayout
    from thunderserve.kvlink.protocol import Block

__all__ = ["EngineLink", "FreeSlot"]


@dataclass(frozen=True, slots=True)
class EngineLink:
    """A connection; a slot of one that is gone is never named on the next.

    Attributes:
        slots: PREFILL: who may fill which slot.
    """

    socket: EngineSocket
    slots: EngineSlots

    def free_slot(self, number: int | None) -> FreeSlot | None:
        """The slot of a number that `slots` gave."""
        return None if number is None else FreeSlot(self, number)

    def values(self, layout: KvLayout, slot: int, block: Block) -> npt.NDArray[np.uint16]:
        """A block's values in a slot; raises FrameError when they do not fit it."""
        memory = self.socket.slots.view(slot, block.raw_bytes(layout))
        return np.frombuffer(memory, dtype=np.uint16).reshape(block.shape(layout))

    def hang_up(self) -> None:
        """Wakes whoever blocks in it."""
        self.socket.shut()
        self.slots.close()


@dataclass(frozen=True, slots=True)
class FreeSlot:
    """PREFILL: a slot to fill."""

    link: EngineLink
    number: int

    def send(
        self,
        layout: KvLayout,
        room: int,
        block: Block,
        fill: Callable[[npt.NDArray[np.uint16]], object],
    ) -> None:
        """Have a block written into it, and give it to the sidecar."""
        try:
            fill(self.link.values(layout, self.number, block))
        except BaseException:
            self.link.slots.give_back(self.number)
            raise
        self.link.socket.send(Message(MessageKind.PAGES, room, block, self.number))
