"""One frame: a fixed header, then the payload; CRC-32 guards both.

::

    0    magic "TSKV"        24   first layer      48   payload bytes
    4    protocol version    28   layer count      52   CRC-32 of the payload
    6    kind                32   first KV head    56   CRC-32 of bytes 0..56
    7    wire mode           36   KV head count    60   payload
    8    layout fingerprint  40   first page
    16   room                44   page count       all numbers big-endian
"""

from __future__ import annotations

import struct
from dataclasses import astuple, dataclass
from enum import IntEnum

from thunderserve.core.request import WireMode
from thunderserve.kvlink.protocol.blocks import Block
from thunderserve.kvlink.protocol.checksum import crc32
from thunderserve.kvlink.protocol.errors import (
    ChecksumError,
    FrameError,
    FrameTooLargeError,
    ProtocolVersionError,
)

__all__ = [
    "HEADER_BYTES",
    "PROTOCOL_VERSION",
    "Buffer",
    "FrameHeader",
    "FrameKind",
    "check_payload",
    "decode_header",
    "encode_header",
    "make_frame",
]

PROTOCOL_VERSION = 4  # goes up with every change of the frames or of a codec's bytes
Buffer = bytes | bytearray | memoryview
_MAGIC = b"TSKV"
_FIELDS = struct.Struct(">4sHBBQQ8I")
_CHECKSUM = struct.Struct(">I")
HEADER_BYTES = _FIELDS.size + _CHECKSUM.size
_MODE_NUMBERS = {WireMode.RAW16: 1, WireMode.INT4: 2}
_MODES = {number: mode for mode, number in _MODE_NUMBERS.items()}


class FrameKind(IntEnum):
    """What a frame carries.

    COMMITTED goes back from the receiver to the sender; PROBE, between rooms, is answered by an
    empty one with its room's number, which means nothing else.
    """

    PAGES = 1
    AUX = 2
    END = 3
    COMMITTED = 4
    PROBE = 5


@dataclass(frozen=True, slots=True)
class FrameHeader:
    """A frame without its payload.

    Attributes:
        wire_mode: How this payload is encoded; short blocks of an int4 transfer go as raw16.
        fingerprint: `KvLayout.fingerprint` of the sender.
        block: Set for PAGES alone.
    """

    kind: FrameKind
    wire_mode: WireMode
    fingerprint: int
    room: int
    block: Block | None
    payload_bytes: int
    payload_crc: int

    @property
    def frame_bytes(self) -> int:
        """Bytes on the wire, header included."""
        return HEADER_BYTES + self.payload_bytes


def make_frame(
    kind: FrameKind,
    room: int,
    fingerprint: int,
    payload: Buffer = b"",
    *,
    wire_mode: WireMode = WireMode.RAW16,
    block: Block | None = None,
) -> FrameHeader:
    """The header for a payload, its checksum computed."""
    view = memoryview(payload)
    crc = crc32(view)
    return FrameHeader(kind, wire_mode, fingerprint, room, block, view.nbytes, crc)


def encode_header(header: FrameHeader) -> bytes:
    """`HEADER_BYTES` bytes."""
    ranges = (0,) * 6 if header.block is None else astuple(header.block)
    packed = _FIELDS.pack(
        _MAGIC,
        PROTOCOL_VERSION,
        header.kind,
        _MODE_NUMBERS[header.wire_mode],
        header.fingerprint,
        header.room,
        *ranges,
        header.payload_bytes,
        header.payload_crc,
    )
    return packed + _CHECKSUM.pack(crc32(packed))


def decode_header(data: Buffer, max_payload_bytes: int) -> FrameHeader:
    """Check a header and read it.

    Args:
        data: At least `HEADER_BYTES` bytes.
        max_payload_bytes: What the receiver's buffers hold.

    Raises:
        ProtocolVersionError: Another protocol or version.
        ChecksumError: The header was damaged.
        FrameTooLargeError: The payload would not fit.
        FrameError: Unknown kind or wire mode, or a bad range.
    """
    view = memoryview(data)[:HEADER_BYTES]
    magic, version, kind, mode, fingerprint, room, *ranges, size, crc = _FIELDS.unpack_from(view)
    if magic != _MAGIC or version != PROTOCOL_VERSION:
        raise ProtocolVersionError(
            f"frame starts with {magic!r} version {version}; "
            f"this sidecar speaks {_MAGIC!r} version {PROTOCOL_VERSION}"
        )
    if crc32(view[: _FIELDS.size]) != _CHECKSUM.unpack_from(view, _FIELDS.size)[0]:
        raise ChecksumError(f"the header of a frame that claims room {room} was damaged")
    if size > max_payload_bytes:
        raise FrameTooLargeError(
            f"room {room}: a payload of {size} bytes; at most {max_payload_bytes} are taken"
        )
    if kind not in FrameKind.__members__.values() or mode not in _MODES:
        raise FrameError(f"room {room}: unknown frame kind {kind} or wire mode {mode}")
    block = _block(room, ranges) if kind == FrameKind.PAGES else None
    return FrameHeader(FrameKind(kind), _MODES[mode], fingerprint, room, block, size, crc)


def check_payload(header: FrameHeader, payload: Buffer) -> None:
    """Raises ChecksumError when the payload is not what the header promises."""
    view = memoryview(payload)
    if view.nbytes != header.payload_bytes or crc32(view) != header.payload_crc:
        raise ChecksumError(
            f"room {header.room}: the payload of a {header.kind.name} frame changed"
        )


def _block(room: int, ranges: list[int]) -> Block:
    if 0 in ranges[1::2]:
        layers, heads, pages = ranges[1::2]
        raise FrameError(
            f"room {room}: a PAGES frame with {layers} layers, {heads} heads, {pages} pages"
        )
    return Block(*ranges)
