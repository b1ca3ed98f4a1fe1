"""An engine that is registered with this sidecar: one session for each of its ranks."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from thunderserve.core.errors import PreconditionError
from thunderserve.core.kv import KvLayout, KvPart, parts_cover
from thunderserve.core.plan import Phase
from thunderserve.kvlink.protocol import Block, FrameError
from thunderserve.kvlink.protocol.message import (
    MESSAGE_HEADER_BYTES,
    Message,
    MessageKind,
    decode_message_header,
    encode_message_header,
)
from thunderserve.kvlink.slots import Lending, SharedSlots, SlotPool
from thunderserve.kvlink.transport import ByteStream

if TYPE_CHECKING:
    from typing import Any

    from thunderserve.kvlink.protocol.frame import Buffer

__all__ = ["Engine", "Session", "read_message", "session_from_hello", "write_message"]

_MOST_COUNTED = 1 << 16  # of anything; also of heads in all layers, whose books are kept


@dataclass(slots=True, eq=False)
class Session:
    """One rank of an engine in one phase, its connection and the memory shared with it.

    Attributes:
        engine: Names the engine in this phase; all of its ranks say the same.
        layout: Of the whole cache.
        part: What this rank holds of it.
        slots: Values pass through these: from the rank in PREFILL, to it in DECODE.
        filled: PREFILL: those that the rank has given to the sidecar.
        empty: DECODE: those that the sidecar may fill.
    """

    engine: str
    layout: KvLayout
    phase: Phase
    part: KvPart
    stream: ByteStream
    slots: SharedSlots
    filled: Lending
    empty: SlotPool
    _turn: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def tell(
        self, kind: MessageKind, room: int, payload: Buffer = b"", *, slot: int = 0
    ) -> None:
        """Send the rank one message; waits while the rank is slow.

        Raises:
            StreamClosedError: The rank is gone.
        """
        async with self._turn:
            await write_message(self.stream, Message(kind, room, slot=slot), payload)

    async def give(self, room: int, block: Block, slot: int) -> None:
        """DECODE: hand over a slot that holds a block; the rank gives it back."""
        async with self._turn:
            await write_message(self.stream, Message(MessageKind.PAGES, room, block, slot))

    async def free(self, slot: int) -> None:
        """PREFILL: the rank may fill a slot again; nothing when it is gone."""
        self.filled.take_back(slot)
        if not self.stream.closed:
            await self.tell(MessageKind.FREE, 0, slot=slot)

    def close(self) -> None:
        """The rank is gone, or is to go."""
        self.empty.close()
        self.stream.close()


class Engine:
    """The ranks of one engine in one phase, as far as they have registered."""

    def __init__(self, first: Session) -> None:
        self.name = first.engine
        self.layout = first.layout
        self.phase = first.phase
        self.rank_count = first.part.rank_count
        self._sessions: dict[int, Session] = {}

    @property
    def sessions(self) -> list[Session]:
        """By rank."""
        return [self._sessions[rank] for rank in sorted(self._sessions)]

    @property
    def complete(self) -> bool:
        """True when all ranks are there."""
        return len(self._sessions) == self.rank_count

    def get(self, rank: int) -> Session | None:
        """None while the rank is not there."""
        return self._sessions.get(rank)

    def join(self, session: Session) -> None:
        """Take a rank in.

        Raises:
            PreconditionError: It is not of this engine, or the ranks do not make up one cache.
        """
        ours = (self.layout, self.phase, self.rank_count)
        if (session.layout, session.phase, session.part.rank_count) != ours:
            raise PreconditionError(
                f"rank {session.part.rank} says {session.layout}, {session.phase} and "
                f"{session.part.rank_count} ranks; the other ranks of its engine say {ours}"
            )
        parts = {rank: known.part for rank, known in self._sessions.items()}
        parts[session.part.rank] = session.part
        held = list(parts.values())
        if len(held) == self.rank_count and not parts_cover(self.layout, held):
            raise PreconditionError(f"the ranks do not hold each layer of each head once: {held}")
        self._sessions[session.part.rank] = session

    def leave(self, session: Session) -> None:
        """Let a rank go; one that has been replaced is gone already."""
        if self._sessions.get(session.part.rank) is session:
            del self._sessions[session.part.rank]

    async def tell(self, kind: MessageKind, room: int, payload: Buffer = b"") -> None:
        """Tell every rank; one that is slow does not keep the others from hearing it.

        Raises:
            StreamClosedError: A rank is gone; the others have been told.
        """
        told = (session.tell(kind, room, payload) for session in self.sessions)
        for result in await asyncio.gather(*told, return_exceptions=True):
            if isinstance(result, BaseException):
                raise result


def session_from_hello(fields: dict[str, Any], stream: ByteStream, slots: SharedSlots) -> Session:
    """Raises FrameError when the fields are not those of a HELLO, and for a bad layout."""
    try:
        layout = KvLayout(**_counted(fields["layout"]))
        if layout.layer_count * layout.kv_head_count > _MOST_COUNTED:
            raise FrameError(
                f"a HELLO with {layout}: more than {_MOST_COUNTED} heads in all layers"
            )
        return Session(
            engine=str(fields["engine"]),
            layout=layout,
            phase=Phase(fields["phase"]),
            part=KvPart(**_counted(fields["part"])),
            stream=stream,
            slots=slots,
            filled=Lending(slots.slot_count),
            empty=SlotPool(slots.slot_count),
        )
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise FrameError(f"a HELLO that says {fields!r}: {error}") from error


def _counted(fields: dict[str, Any]) -> dict[str, Any]:
    """The same fields; JSON also knows numbers like 2.5, true and 1e999, and very large ones."""
    for name, value in fields.items():
        whole = name == "copy" or isinstance(value, str) or type(value) is int
        if not whole or (type(value) is int and value > _MOST_COUNTED):
            raise FrameError(f"a HELLO with {name} {value!r}; at most {_MOST_COUNTED} are counted")
    return fields


async def read_message(stream: ByteStream) -> tuple[Message, memoryview]:
    """The next message and its payload."""
    header = memoryview(bytearray(MESSAGE_HEADER_BYTES))
    await stream.read_into(header)
    message = decode_message_header(header)
    payload = memoryview(bytearray(message.payload_bytes))
    if payload:
        await stream.read_into(payload)
    return message, payload


async def write_message(stream: ByteStream, message: Message, payload: Buffer = b"") -> None:
    """Send one message."""
    view = memoryview(payload)
    header = replace(message, payload_bytes=view.nbytes)
    await stream.write(encode_message_header(header), view)
