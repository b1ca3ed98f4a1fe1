"""The frame format: what is written is read back, and what was damaged is refused."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from thunderserve.core.request import WireMode
from thunderserve.kvlink.protocol import (
    HEADER_BYTES,
    Block,
    ChecksumError,
    FrameError,
    FrameKind,
    FrameTooLargeError,
    ProtocolVersionError,
    check_payload,
    decode_header,
    encode_header,
    make_frame,
)

LIMIT = 1 << 20
U32 = st.integers(1, 2**31)
BLOCKS = st.builds(Block, U32, U32, U32, U32, U32, U32)
FRAME = make_frame(FrameKind.PAGES, 7, 9, b"payload", block=Block(1, 2, 3, 4, 5, 6))


@settings(deadline=None)  # on a busy machine time says nothing
@given(
    st.integers(1, 2**63 - 1),
    st.integers(0, 2**64 - 1),
    st.binary(max_size=64),
    st.sampled_from([WireMode.RAW16, WireMode.INT4]),
    BLOCKS,
)
def test_header_survives_the_wire_when_any_values(
    room: int, fingerprint: int, payload: bytes, mode: WireMode, block: Block
) -> None:
    """Encoding and decoding are inverse for every header that can be built."""
    header = make_frame(FrameKind.PAGES, room, fingerprint, payload, wire_mode=mode, block=block)

    data = encode_header(header)

    assert len(data) == HEADER_BYTES
    assert decode_header(data, LIMIT) == header


@settings(deadline=None)  # on a busy machine time says nothing
@given(st.integers(0, HEADER_BYTES * 8 - 1))
def test_header_is_refused_when_any_bit_flips(bit: int) -> None:
    """No single damaged bit goes unnoticed."""
    data = bytearray(encode_header(FRAME))
    data[bit // 8] ^= 1 << bit % 8

    with pytest.raises((ChecksumError, ProtocolVersionError)):
        decode_header(data, LIMIT)


def test_payload_is_refused_when_a_byte_changes_or_is_missing() -> None:
    """The payload is guarded as well."""
    check_payload(FRAME, b"payload")
    for damaged in (b"payloaD", b"payloa", b""):
        with pytest.raises(ChecksumError, match="room 7"):
            check_payload(FRAME, damaged)


def test_header_is_refused_when_the_payload_would_not_fit() -> None:
    """The receiver's buffers are never overrun: the length is bounded before it is believed."""
    with pytest.raises(FrameTooLargeError, match="7 bytes"):
        decode_header(encode_header(FRAME), max_payload_bytes=6)


def test_header_is_refused_when_another_protocol_speaks() -> None:
    """An HTTP client that knocks is told apart from a damaged frame."""
    with pytest.raises(ProtocolVersionError, match="TSKV"):
        decode_header(b"GET / HTTP/1.1\r\n".ljust(HEADER_BYTES), LIMIT)


def test_header_is_refused_when_its_block_is_empty() -> None:
    """A well-formed frame may still say nonsense."""
    header = make_frame(FrameKind.PAGES, 7, 9, b"", block=None)

    with pytest.raises(FrameError, match="0 layers"):
        decode_header(encode_header(header), LIMIT)
