"""What can be wrong with a frame or a transfer; each ends one transfer, never the process."""

from __future__ import annotations

from thunderserve.core.errors import TransferError

__all__ = [
    "ChecksumError",
    "FingerprintMismatchError",
    "FrameError",
    "FrameOrderError",
    "FrameTooLargeError",
    "IncompleteTransferError",
    "NonFiniteKvError",
    "ProtocolVersionError",
]


class FrameError(TransferError):
    """A frame is not what the protocol allows."""


class ProtocolVersionError(FrameError):
    """The peer speaks another protocol, or another version of it."""


class ChecksumError(FrameError):
    """The bytes are not those that were sent."""


class FrameTooLargeError(FrameError):
    """A payload longer than the receiver agreed to hold."""


class FingerprintMismatchError(FrameError):
    """The pages belong to another model or layout."""


class FrameOrderError(FrameError):
    """Pages twice, pages out of range, or a frame after the end."""


class IncompleteTransferError(TransferError):
    """The transfer was ended before everything had arrived."""


class NonFiniteKvError(TransferError):
    """The cache holds NaN or infinity, which a lossy codec cannot carry."""
