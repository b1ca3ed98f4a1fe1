"""The engine socket: the ranks of an engine register, reserve, send and receive here."""

from __future__ import annotations

import contextlib
import logging
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from thunderserve.core.errors import PreconditionError, ThunderServeError
from thunderserve.core.plan import Phase
from thunderserve.kvlink.protocol import FrameError
from thunderserve.kvlink.protocol.message import (
    Message,
    MessageKind,
    encode_message_header,
    pack_json,
    unpack_json,
)
from thunderserve.kvlink.session import Session, read_message, session_from_hello, write_message
from thunderserve.kvlink.slots import SharedSlots

if TYPE_CHECKING:
    from thunderserve.kvlink.exchange import Exchange
    from thunderserve.kvlink.receiving import Receiving
    from thunderserve.kvlink.sending import Sending
    from thunderserve.kvlink.transport import ByteStream

__all__ = ["EngineServer", "SlotLimits"]

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class SlotLimits:
    """What a rank is lent: both > 0."""

    slot_count: int
    slot_bytes: int


class EngineServer:
    """Serves one connection of each rank; no message of a rank waits for one before it."""

    def __init__(
        self, exchange: Exchange, sending: Sending, receiving: Receiving, limits: SlotLimits
    ) -> None:
        self._exchange = exchange
        self._sending = sending
        self._receiving = receiving
        self._limits = limits

    async def serve(self, stream: ByteStream) -> None:
        """One connection, until it ends."""
        hello, payload = await read_message(stream)
        slots, descriptor = SharedSlots.make(self._limits.slot_count, self._limits.slot_bytes)
        with contextlib.ExitStack() as stack:
            stack.callback(os.close, descriptor)
            try:
                if hello.kind is not MessageKind.HELLO:
                    raise FrameError(f"the first message is {hello.kind.name}, not HELLO")
                session = session_from_hello(unpack_json(payload), stream, slots)
                self._check(session)
                self._exchange.attach(session)
            except ThunderServeError as error:
                await _refuse(stream, error)
                return
            stack.callback(self._exchange.detach, session)
            self._welcome(stream, descriptor)
            while True:
                self._handle(session, *await read_message(stream))

    def _check(self, session: Session) -> None:
        page_bytes = session.layout.page_head_bytes * session.part.head_count
        limit_bytes = self._limits.slot_bytes
        if page_bytes > limit_bytes:
            raise PreconditionError(
                f"one page of one layer has {page_bytes} bytes, a frame at most {limit_bytes}; "
                "raise max_frame_bytes"
            )

    def _welcome(self, stream: ByteStream, descriptor: int) -> None:
        limits = self._limits
        fields = {"slot_count": limits.slot_count, "slot_bytes": limits.slot_bytes}
        payload = pack_json(fields)
        header = Message(MessageKind.WELCOME, payload_bytes=len(payload))
        stream.send_descriptor(encode_message_header(header) + payload, descriptor)

    def _handle(self, session: Session, message: Message, payload: memoryview) -> None:
        if message.kind is MessageKind.ABORT:
            fields = unpack_json(payload)
            reason, peer = str(fields.get("reason")), str(fields.get("peer_address", ""))
            self._exchange.abort_by_engine(message.room, reason, peer)
        elif session.phase is Phase.DECODE:
            self._handle_decode(session, message, payload)
        else:
            self._handle_prefill(session, message, payload)

    def _handle_decode(self, session: Session, message: Message, payload: memoryview) -> None:
        if message.kind is MessageKind.FREE:
            session.empty.give_back(message.slot)
        elif message.kind is MessageKind.RESERVE:
            fields = unpack_json(payload)
            peer, page_count = str(fields.get("peer_address")), fields.get("page_count")
            if not isinstance(page_count, int) or page_count <= 0:
                raise FrameError(f"room {message.room}: page_count is {page_count!r}")
            # Beside this loop: the peer may be slow to answer.
            self._exchange.spawn(self._receiving.reserve(session, message.room, peer, page_count))
        else:
            raise FrameError(f"{message.kind.name} from an engine in phase {session.phase}")

    def _handle_prefill(self, session: Session, message: Message, payload: memoryview) -> None:
        sending = self._sending
        if message.kind is MessageKind.PAGES and message.block is not None:
            session.filled.lend(message.slot)
            sending.pages(session, message.room, message.block, message.slot)
        elif message.kind is MessageKind.AUX:
            sending.aux(session, message.room, payload)
        elif message.kind is MessageKind.COMPUTED:
            sending.computed(session, message.room)
        elif message.kind is MessageKind.FINISH:
            sending.finish(session, message.room)
        else:
            raise FrameError(f"{message.kind.name} from an engine in phase {session.phase}")


async def _refuse(stream: ByteStream, error: ThunderServeError) -> None:
    _log.warning("engine refused: %s", error)
    refusal = pack_json({"reason": str(error)})
    await write_message(stream, Message(MessageKind.REFUSED), refusal)
