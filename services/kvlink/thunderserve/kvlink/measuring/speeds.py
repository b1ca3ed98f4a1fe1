"""How fast this host encodes and decodes each wire mode, checksums included."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import numpy as np

from thunderserve.core.kv import KvLayout
from thunderserve.kvlink.codec import Int4Codec, Raw16Codec
from thunderserve.kvlink.measuring.choice import WIRE_RATIOS, Speed
from thunderserve.kvlink.protocol import FrameKind, check_payload, make_frame

if TYPE_CHECKING:
    from collections.abc import Callable

    from thunderserve.core.request import WireMode

__all__ = ["CodecSpeeds"]

_SMOOTHING = 0.1
# Of smaller blocks, handing the work to a thread takes as long as the work.
_LEAST_BYTES = 256 * 1024
_SAMPLE = KvLayout("sample", 4, 8, 128, 16, "bfloat16")
_SAMPLE_PAGES = 8


class CodecSpeeds:
    """Rates of this host, in 16-bit bytes per second; real work refines what a sample says.

    Args:
        clock: Seconds that only grow.
    """

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self._encode: dict[WireMode, float] = {}
        self._decode: dict[WireMode, float] = {}

    @property
    def decode_rates(self) -> dict[WireMode, float]:
        """What the peers that send to this host are told."""
        return dict(self._decode)

    def speeds(self, decode_rates: dict[WireMode, float]) -> dict[WireMode, Speed]:
        """Of each mode: this host encodes; the peer decodes at `decode_rates`, or as this host."""
        unknown = Speed()
        return {
            mode: Speed(
                self._encode.get(mode, unknown.encode_bytes_per_s),
                decode_rates.get(mode) or self._decode.get(mode, unknown.decode_bytes_per_s),
            )
            for mode in WIRE_RATIOS
        }

    def encoded(self, mode: WireMode, raw_bytes: int, seconds: float) -> None:
        """A block was encoded and its checksum computed."""
        _note(self._encode, mode, raw_bytes, seconds)

    def decoded(self, mode: WireMode, raw_bytes: int, seconds: float) -> None:
        """A block was checked and decoded."""
        _note(self._decode, mode, raw_bytes, seconds)

    def measure(self) -> None:
        """Encode and decode a block of a megabyte, twice: the first time memory is new."""
        shape = _SAMPLE.block_shape(_SAMPLE.layer_count, _SAMPLE_PAGES)
        values = np.random.default_rng(0).integers(0x3C00, 0x4000, shape).astype(np.uint16)
        out = memoryview(bytearray(values.nbytes))
        decoded = memoryview(bytearray(values.nbytes))
        for codec in (Raw16Codec(_SAMPLE), Int4Codec(_SAMPLE)) * 2:
            start = self._clock()
            payload = codec.encode(values, out)
            frame = make_frame(FrameKind.AUX, 1, 0, payload)
            sent = self._clock()
            check_payload(frame, payload)
            codec.decode(payload, _SAMPLE.layer_count, _SAMPLE_PAGES, decoded)
            end = self._clock()
            self._encode[codec.mode] = values.nbytes / max(sent - start, 1e-9)
            self._decode[codec.mode] = values.nbytes / max(end - sent, 1e-9)


def _note(rates: dict[WireMode, float], mode: WireMode, raw_bytes: int, seconds: float) -> None:
    if raw_bytes < _LEAST_BYTES or seconds <= 0:
        return
    rate = raw_bytes / seconds
    known = rates.get(mode, rate)
    rates[mode] = known + _SMOOTHING * (rate - known)
