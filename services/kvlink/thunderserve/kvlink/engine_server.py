"""The engine socket: engines register, reserve, send and receive here."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from thunderserve.core.errors import PreconditionError, ThunderServeError
from thunderserve.kvlink.protocol import FrameError
from thunderserve.kvlink.protocol.message import Message, MessageKind, pack_json, unpack_json
from thunderserve.kvlink.session import (
    Session,
    read_message_header,
    session_from_hello,
    write_message,
)

if TYPE_CHECKING:
    from thunderserve.core.kv import KvPart
    from thunderserve.kvlink.exchange import Exchange
    from thunderserve.kvlink.receiving import Receiving
    from thunderserve.kvlink.sending import Sending
    from thunderserve.kvlink.transport import BufferPool, ByteStream

__all__ = ["EngineServer"]

_log = logging.getLogger(__name__)
_MAX_JSON_BYTES = 64 * 1024


class EngineServer:
    """Serves the connections of an engine's ranks: one for control, some for sending, of each."""

    def __init__(
        self, exchange: Exchange, sending: Sending, receiving: Receiving, buffers: BufferPool
    ) -> None:
        self._exchange = exchange
        self._sending = sending
        self._receiving = receiving
        self._buffers = buffers

    async def serve(self, stream: ByteStream) -> None:
        """One connection, until it ends."""
        hello = await read_message_header(stream, _MAX_JSON_BYTES)
        payload = memoryview(bytearray(hello.payload_bytes))
        await stream.read_into(payload)
        try:
            if hello.kind is not MessageKind.HELLO:
                raise FrameError(f"the first message is {hello.kind.name}, not HELLO")
            fields = unpack_json(payload)
            session = session_from_hello(fields, stream)
            self._check(session)
        except ThunderServeError as error:
            await _refuse(stream, error)
            return
        if fields.get("channel") == "send":
            await self._serve_send(session)
        else:
            await self._serve_control(session)

    def _check(self, session: Session) -> None:
        page_bytes = session.layout.page_head_bytes * session.part.head_count
        limit_bytes = self._buffers.buffer_bytes
        if page_bytes > limit_bytes:
            raise PreconditionError(
                f"one page of one layer has {page_bytes} bytes, a frame at most {limit_bytes}; "
                "raise max_frame_bytes"
            )

    async def _serve_control(self, session: Session) -> None:
        try:
            self._exchange.attach(session)
        except ThunderServeError as error:
            await _refuse(session.stream, error)
            return
        try:
            await self._welcome(session.stream)
            while True:
                message = await read_message_header(session.stream, _MAX_JSON_BYTES)
                payload = memoryview(bytearray(message.payload_bytes))
                await session.stream.read_into(payload)
                self._control(session, message, unpack_json(payload))
        finally:
            self._exchange.detach(session)

    def _control(self, session: Session, message: Message, fields: dict[str, object]) -> None:
        if message.kind is MessageKind.RESERVE:
            peer, page_count = str(fields.get("peer_address")), fields.get("page_count")
            if not isinstance(page_count, int) or page_count <= 0:
                raise FrameError(f"room {message.room}: page_count is {page_count!r}")
            # Beside this loop: the peer may be slow to answer.
            self._exchange.spawn(self._receiving.reserve(session, message.room, peer, page_count))
        elif message.kind is MessageKind.ABORT:
            reason, peer = str(fields.get("reason")), str(fields.get("peer_address", ""))
            self._exchange.abort_by_engine(message.room, reason, peer)
        else:
            raise FrameError(f"{message.kind.name} on a control connection")

    async def _serve_send(self, session: Session) -> None:
        stream, part = session.stream, session.part
        await self._welcome(stream)
        while True:
            message = await read_message_header(stream, self._buffers.buffer_bytes)
            async with self._buffers.take(message.payload_bytes) as payload:
                await stream.read_into(payload)
                await self._forward(part, message, payload)

    async def _forward(self, part: KvPart, message: Message, payload: memoryview) -> None:
        if message.kind is MessageKind.PAGES and message.block is not None:
            await self._sending.pages(part, message.room, message.block, payload)
        elif message.kind is MessageKind.AUX:
            await self._sending.aux(message.room, payload)
        elif message.kind is MessageKind.FINISH:
            await self._sending.finish(part, message.room)
        else:
            raise FrameError(f"{message.kind.name} on a sending connection")

    async def _welcome(self, stream: ByteStream) -> None:
        welcome = pack_json({"max_payload_bytes": self._buffers.buffer_bytes})
        await write_message(stream, Message(MessageKind.WELCOME), welcome)


async def _refuse(stream: ByteStream, error: ThunderServeError) -> None:
    _log.warning("engine refused: %s", error)
    refusal = pack_json({"reason": str(error)})
    await write_message(stream, Message(MessageKind.REFUSED), refusal)
