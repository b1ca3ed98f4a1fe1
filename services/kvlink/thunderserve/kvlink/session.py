"""An engine that is registered with this sidecar."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from thunderserve.core.kv import KvLayout
from thunderserve.core.plan import Phase
from thunderserve.kvlink.protocol import Block, FrameError
from thunderserve.kvlink.protocol.message import (
    MESSAGE_HEADER_BYTES,
    Message,
    MessageKind,
    decode_message_header,
    encode_message_header,
)
from thunderserve.kvlink.transport import ByteStream

if TYPE_CHECKING:
    from typing import Any

    from thunderserve.kvlink.protocol.frame import Buffer

__all__ = ["Session", "read_message_header", "session_from_hello", "write_message"]


@dataclass(slots=True, eq=False)
class Session:
    """One engine in one phase, and the control connection to it."""

    name: str
    layout: KvLayout
    phase: Phase
    stream: ByteStream
    _turn: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def tell(
        self, kind: MessageKind, room: int, payload: Buffer = b"", block: Block | None = None
    ) -> None:
        """Send the engine one message; waits while the engine is slow.

        Raises:
            StreamClosedError: The engine is gone.
        """
        async with self._turn:
            await write_message(self.stream, Message(kind, room, block), payload)


def session_from_hello(fields: dict[str, Any], stream: ByteStream) -> Session:
    """Raises FrameError when the fields are not those of a HELLO, and for a bad layout."""
    try:
        layout = KvLayout(**fields["layout"])
        return Session(str(fields["session"]), layout, Phase(fields["phase"]), stream)
    except (KeyError, TypeError, ValueError) as error:
        raise FrameError(f"a HELLO that says {fields!r}: {error}") from error


async def read_message_header(stream: ByteStream, max_payload_bytes: int) -> Message:
    """The next message's header; its payload follows on the stream."""
    header = memoryview(bytearray(MESSAGE_HEADER_BYTES))
    await stream.read_into(header)
    return decode_message_header(header, max_payload_bytes)


async def write_message(stream: ByteStream, message: Message, payload: Buffer = b"") -> None:
    """Send one message."""
    view = memoryview(payload)
    header = Message(message.kind, message.room, message.block, view.nbytes)
    await stream.write(encode_message_header(header), view)
