"""Messages between an engine and its own sidecar, over a Unix stream socket.

::

    engine                          sidecar
      HELLO {layout, part, ...}  ->            first message of a connection
                                 <- WELCOME {slots} with their memory | REFUSED {reason}
      RESERVE {peer, pages}      ->            decode: fetch this room
                                 <- RESERVED   prefill: a decode side waits for this room
      PAGES slot                 ->            prefill: part of the room's cache
      AUX, COMPUTED, FINISH      ->            prefill: its metadata; prefill has ended; all is said
                                 <- PAGES slot decode: part of the room's cache
                                 <- AUX        decode: its metadata
      FREE slot                 <-->           whoever was given the slot is done with it
                                 <- COMMITTED | FAILED {reason}
      ABORT {reason, peer}       ->            peer: of a room that was never reserved

Each rank of an engine has a connection of its own and says in HELLO which part of the cache it
holds. All ranks RESERVE a room, and all say COMPUTED and FINISH; PAGES are of the rank's part; AUX
is sent by one rank and told to all.

A message is a fixed header and a payload: opaque bytes for AUX, JSON or nothing for the rest. The
16-bit values of PAGES lie in a slot of the memory that came with WELCOME. The socket belongs to one
user on one host, so there is no checksum.
"""

from __future__ import annotations

import json
import struct
from dataclasses import astuple, dataclass
from enum import IntEnum
from typing import TYPE_CHECKING, Any

from thunderserve.kvlink.protocol.blocks import Block
from thunderserve.kvlink.protocol.errors import FrameError, FrameTooLargeError

if TYPE_CHECKING:
    from thunderserve.kvlink.protocol.frame import Buffer

__all__ = [
    "MAX_PAYLOAD_BYTES",
    "MESSAGE_HEADER_BYTES",
    "Message",
    "MessageKind",
    "decode_message_header",
    "encode_message_header",
    "pack_json",
    "unpack_json",
]

_MAGIC = b"TSEL"
_VERSION = 3
_HEADER = struct.Struct(">4sBBQ8I")
MESSAGE_HEADER_BYTES = _HEADER.size
# Metadata of a request grows with what was asked of it: 0.1 MB is much.
MAX_PAYLOAD_BYTES = 1024 * 1024


class MessageKind(IntEnum):
    """What a message says."""

    HELLO = 1
    WELCOME = 2
    REFUSED = 3
    RESERVE = 4
    RESERVED = 5
    PAGES = 6
    AUX = 7
    FINISH = 8
    COMMITTED = 9
    FAILED = 10
    ABORT = 11
    FREE = 12
    COMPUTED = 13


@dataclass(frozen=True, slots=True)
class Message:
    """A message without its payload; `block` is set for PAGES, `slot` for PAGES and FREE."""

    kind: MessageKind
    room: int = 0
    block: Block | None = None
    slot: int = 0
    payload_bytes: int = 0


def encode_message_header(message: Message) -> bytes:
    """`MESSAGE_HEADER_BYTES` bytes."""
    ranges = (0,) * 6 if message.block is None else astuple(message.block)
    numbers = (message.room, *ranges, message.slot, message.payload_bytes)
    return _HEADER.pack(_MAGIC, _VERSION, message.kind, *numbers)


def decode_message_header(data: Buffer) -> Message:
    """Read a header.

    Raises:
        FrameTooLargeError: The payload is longer than `MAX_PAYLOAD_BYTES`.
        FrameError: Anything else is wrong with it.
    """
    magic, version, kind, room, *ranges, slot, size = _HEADER.unpack_from(data)
    if magic != _MAGIC or version != _VERSION or kind not in MessageKind.__members__.values():
        raise FrameError(f"not a kvlink engine message: {bytes(memoryview(data)[:6])!r}")
    if size > MAX_PAYLOAD_BYTES:
        raise FrameTooLargeError(f"a message of {size} bytes; at most {MAX_PAYLOAD_BYTES}")
    if kind != MessageKind.PAGES:
        return Message(MessageKind(kind), room, None, slot, size)
    if 0 in ranges[1::2]:
        raise FrameError(f"room {room}: a message with nothing in one of the ranges {ranges}")
    return Message(MessageKind.PAGES, room, Block(*ranges), slot, size)


def pack_json(fields: dict[str, Any]) -> bytes:
    """The payload of a message whose payload is JSON."""
    return json.dumps(fields).encode()


def unpack_json(payload: Buffer) -> dict[str, Any]:
    """The fields of such a payload; raises FrameError when it is not a JSON object."""
    try:
        fields = json.loads(bytes(payload))
    except (ValueError, RecursionError) as error:
        raise FrameError(f"not JSON: {error}") from error
    if not isinstance(fields, dict):
        raise FrameError(f"a JSON object was expected, not {fields!r}")
    return fields
