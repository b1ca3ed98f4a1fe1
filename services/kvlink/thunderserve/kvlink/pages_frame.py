"""A frame of pages on its way from the network into an engine's slot."""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from thunderserve.kvlink.codec import Codec, Values
from thunderserve.kvlink.protocol import Block, FrameHeader, Transfer, check_payload
from thunderserve.kvlink.transport import Stream

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from thunderserve.kvlink.session import Session

__all__ = ["PagesFrame", "slot_for"]


@dataclass(frozen=True, slots=True)
class PagesFrame:
    """A frame whose header has been read, and who reads and decodes the rest."""

    header: FrameHeader
    block: Block
    codec: Codec
    stream: Stream
    stall_timeout_s: float

    async def read_into(self, payload: memoryview) -> None:
        """Fill `payload`, which is as long as the header says."""
        # It holds memory that others wait for.
        await self.stream.read_into(payload, self.stall_timeout_s)

    def unpack(self, payload: memoryview, out: memoryview | None = None) -> Values:
        """The 16-bit values of an unharmed payload, in `out`; a raw one's are itself."""
        check_payload(self.header, payload)
        return self.codec.decode(payload, self.block.layer_count, self.block.page_count, out)


@asynccontextmanager
async def slot_for(
    session: Session, transfer: Transfer, block: Block
) -> AsyncIterator[tuple[int, memoryview]]:
    """A slot of the rank to fill for a block; it goes back when it could not be given away."""
    slot = await session.empty.take()
    try:
        transfer.check_open()
        yield slot, session.slots.view(slot, block.raw_bytes(transfer.layout))
    except BaseException:
        session.empty.give_back(slot)
        raise
