"""What the fuzzers call: each takes any bytes and raises only when kvlink breaks a promise.

The promises: a parser returns a value that can be built, or raises one of ours; what it returned
means the bytes that came; what a codec decodes is finite and the same on every backend.
"""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING, Any

import numpy as np
from google.protobuf.message import DecodeError

from thunderserve.api.kvlink.v1 import kvlink_pb2
from thunderserve.core.errors import ThunderServeError
from thunderserve.core.kv import KvLayout, parts_cover
from thunderserve.core.request import WireMode
from thunderserve.kvlink.codec import reference
from thunderserve.kvlink.codec.native import NativeCodec, load_library
from thunderserve.kvlink.codec.packing import packed_bytes
from thunderserve.kvlink.protocol import (
    HEADER_BYTES,
    Block,
    FrameKind,
    Transfer,
    check_payload,
    decode_header,
    encode_header,
    make_frame,
)
from thunderserve.kvlink.protocol.message import (
    MESSAGE_HEADER_BYTES,
    Message,
    MessageKind,
    decode_message_header,
    encode_message_header,
    pack_json,
    unpack_json,
)
from thunderserve.kvlink.session import session_from_hello
from thunderserve.kvlink.slots import SharedSlots
from thunderserve.wire.enums import wire_mode_from_proto
from thunderserve.wire.kvlink import layout_from_proto, layout_to_proto

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["SEEDS", "TARGETS"]

LAYOUT = KvLayout("fuzz", 2, 2, 4, 1, "bfloat16")
PAGES = 3
MOST_BYTES = 4096
SLOTS, _ = SharedSlots.make(1, MOST_BYTES)
_CRC_BYTES = 4
_PAYLOAD_CRC_AT = 52


def fuzz_frames(data: bytes) -> None:
    """Frames one after the other, as a receiver reads them, with the books of a room.

    The first byte seals the frames: 1 makes the header's checksum right, 2 the payload's too.
    Without that no mutation would get past the checksums.
    """
    transfer = Transfer(7, LAYOUT, PAGES, WireMode.RAW16)
    rest, seal = data[1:], data[0] if data else 0
    try:
        while rest:
            frame = bytearray(rest[:HEADER_BYTES].ljust(HEADER_BYTES, b"\0"))
            size = int.from_bytes(frame[48:52])
            payload, rest = rest[HEADER_BYTES:][:size], rest[HEADER_BYTES:][size:]
            _seal(frame, payload, seal)
            header = decode_header(frame, MOST_BYTES)
            assert _without_ranges(encode_header(header)) == _without_ranges(bytes(frame))
            check_payload(header, payload)
            if header.kind is FrameKind.END:
                transfer.commit(header, 2.0)
                return
            transfer.accept(header, 1.0)
    except ThunderServeError:
        pass
    report = transfer.report
    assert report.raw_bytes <= LAYOUT.page_bytes * PAGES


def fuzz_messages(data: bytes) -> None:
    """A message of an engine, its JSON, and a HELLO made of it."""
    header, payload = data[:MESSAGE_HEADER_BYTES], data[MESSAGE_HEADER_BYTES:]
    try:
        message = decode_message_header(header.ljust(MESSAGE_HEADER_BYTES, b"\0"))
        again = encode_message_header(message)
        assert decode_message_header(again) == message
    except ThunderServeError:
        pass
    fuzz_hello(payload)


def fuzz_hello(data: bytes) -> None:
    """The first message of a connection; a session's numbers are whole and can be counted to."""
    try:
        session = session_from_hello(unpack_json(data), None, SLOTS)  # type: ignore[arg-type]  # unused
    except ThunderServeError:
        return
    parts_cover(session.layout, [session.part])
    session.layout.whole  # noqa: B018 - it can be built


def fuzz_int4(data: bytes) -> None:
    """A payload of any shape: equal on every backend, and finite, or refused by all."""
    if len(data) < _CRC_BYTES:
        return
    rows, tokens, channels = 1 + data[0] % 3, 1 + data[1] % 140, 2 * (1 + data[2] % 40)
    dtype = ("bfloat16", "float16")[data[3] % 2]
    payload = np.zeros(packed_bytes(rows, tokens, channels), np.uint8)
    body = np.frombuffer(data, np.uint8, offset=4)
    if body.size:
        np.copyto(payload, np.resize(body, payload.size))
    results = [_decoded(backend, payload, dtype, (rows, tokens, channels)) for backend in _BACKENDS]
    first = results[0]
    for other in results[1:]:
        assert (first is None) == (other is None)
        assert first is None or np.array_equal(first, other)
    if first is not None:
        exponent = np.uint16(0x7F80 if dtype == "bfloat16" else 0x7C00)
        assert ((first & np.uint16(0x7FFF)) < exponent).all()


def fuzz_control(data: bytes) -> None:
    """What peers and workers ask by gRPC, from bytes to our own values."""
    kind, body = (data[0] if data else 0) % len(_REQUESTS), data[1:]
    try:
        request = _REQUESTS[kind].FromString(body)
    except DecodeError:
        return
    try:
        if isinstance(request, kvlink_pb2.ReserveTransferRequest):
            layout = layout_from_proto(request.layout)
            assert layout_from_proto(layout_to_proto(layout)) == layout
            assert layout.mismatch(LAYOUT) or layout.fingerprint == LAYOUT.fingerprint
            transfer = Transfer(request.room, LAYOUT, request.page_count, WireMode.INT4)
            _send_one_page(transfer)
        elif isinstance(request, kvlink_pb2.AnnounceTransferRequest):
            wire_mode_from_proto(request.wire_mode)
    except ThunderServeError:
        pass


def _send_one_page(transfer: Transfer) -> None:
    """The sending side's books, with the page count that the peer asked for."""
    size = Block(0, 2, 0, 2, 0, 1).raw_bytes(LAYOUT)
    header = make_frame(
        FrameKind.PAGES, 7, LAYOUT.fingerprint, bytes(size), block=Block(0, 2, 0, 2, 0, 1)
    )
    transfer.accept(header, 1.0)
    transfer.check_complete()


def _seal(frame: bytearray, payload: bytes, seal: int) -> None:
    if seal >= 2:
        frame[_PAYLOAD_CRC_AT : _PAYLOAD_CRC_AT + 4] = zlib.crc32(payload).to_bytes(4)
    if seal >= 1:
        frame[-_CRC_BYTES:] = zlib.crc32(frame[:-_CRC_BYTES]).to_bytes(4)


def _without_ranges(header: bytes) -> bytes:
    """Kinds other than PAGES leave their ranges unread; the checksum covers them."""
    ranges = slice(24, 48) if header[6] != FrameKind.PAGES else slice(0, 0)
    kept = bytearray(header[:-_CRC_BYTES])
    del kept[ranges]
    return bytes(kept)


def _decoded(
    backend: Any, payload: np.ndarray, dtype: str, shape: tuple[int, int, int]
) -> np.ndarray | None:
    out = np.empty(shape, np.uint16)
    try:
        backend.dequantise(payload, dtype, out)
    except ThunderServeError:
        return None
    return out


def _backends() -> Iterator[Any]:
    yield reference
    if (library := load_library()) is not None:
        for level in range(library.kvlink_int4_level() + 1):
            yield NativeCodec(library, level)


_BACKENDS = list(_backends())
_REQUESTS: tuple[Any, ...] = (
    kvlink_pb2.ReserveTransferRequest,
    kvlink_pb2.AnnounceTransferRequest,
    kvlink_pb2.AbortTransferRequest,
    kvlink_pb2.GetTransferRequest,
    kvlink_pb2.GetEndpointRequest,
)


def _frame_seed(seal: int) -> bytes:
    """A whole good transfer."""
    data = bytes([seal])
    for page in range(PAGES):
        block = Block(0, 2, 0, 2, page, 1)
        payload = bytes(block.raw_bytes(LAYOUT))
        header = make_frame(FrameKind.PAGES, 7, LAYOUT.fingerprint, payload, block=block)
        data += encode_header(header) + payload
    data += encode_header(make_frame(FrameKind.AUX, 7, LAYOUT.fingerprint, b"aux")) + b"aux"
    return data + encode_header(make_frame(FrameKind.END, 7, LAYOUT.fingerprint))


def _hello_seed() -> bytes:
    layout = dict(zip(KvLayout.__slots__, ("m", 2, 2, 16, 4, "bfloat16", 1, 1), strict=True))
    part = {"first_layer": 0, "layer_count": 2, "first_head": 0, "head_count": 2}
    return pack_json({"layout": layout, "part": part, "phase": "DECODE", "engine": "e"})


def _message_seed() -> bytes:
    hello = _hello_seed()
    return encode_message_header(Message(MessageKind.HELLO, payload_bytes=len(hello))) + hello


def _control_seed() -> bytes:
    request = kvlink_pb2.ReserveTransferRequest(
        protocol_version=3, room=7, layout=layout_to_proto(LAYOUT), page_count=1, peer_address="a:1"
    )
    return b"\0" + request.SerializeToString()


TARGETS: dict[str, Callable[[bytes], None]] = {
    "frames": fuzz_frames,
    "messages": fuzz_messages,
    "int4": fuzz_int4,
    "control": fuzz_control,
}
SEEDS: dict[str, list[bytes]] = {
    "frames": [_frame_seed(seal) for seal in range(3)],
    "messages": [_message_seed(), encode_message_header(Message(MessageKind.FINISH, 3)) + b"{}"],
    "int4": [bytes([1, 70, 1, 0]) + bytes(range(256)), bytes([0, 7, 3, 1]) + b"\x10\x20" * 40],
    "control": [_control_seed(), b"\x01\x08\x07\x10\x02", b"\x02\x08\x07\x12\x01x"],
}
