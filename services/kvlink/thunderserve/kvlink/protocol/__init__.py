"""What crosses the network and in which order; values in, values out, no I/O.

::

    RESERVED --first frame--> SENDING --complete, END--> COMMITTED
        |                        |
        +-------- abort ---------+--------------------> ABORTED
"""

from __future__ import annotations

from thunderserve.kvlink.protocol.backlog import Backlog
from thunderserve.kvlink.protocol.blocks import Block, block_of_part, split_block
from thunderserve.kvlink.protocol.errors import (
    ChecksumError,
    FingerprintMismatchError,
    FrameError,
    FrameOrderError,
    FrameTooLargeError,
    IncompleteTransferError,
    NonFiniteKvError,
    ProtocolVersionError,
)
from thunderserve.kvlink.protocol.frame import (
    HEADER_BYTES,
    PROTOCOL_VERSION,
    FrameHeader,
    FrameKind,
    check_payload,
    decode_header,
    encode_header,
    make_frame,
)
from thunderserve.kvlink.protocol.transfer import Transfer, TransferState

__all__ = [
    "HEADER_BYTES",
    "PROTOCOL_VERSION",
    "Backlog",
    "Block",
    "ChecksumError",
    "FingerprintMismatchError",
    "FrameError",
    "FrameHeader",
    "FrameKind",
    "FrameOrderError",
    "FrameTooLargeError",
    "IncompleteTransferError",
    "NonFiniteKvError",
    "ProtocolVersionError",
    "Transfer",
    "TransferState",
    "block_of_part",
    "check_payload",
    "decode_header",
    "encode_header",
    "make_frame",
    "split_block",
]
