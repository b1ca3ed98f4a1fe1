"""A link's rate from what its connections delivered; windows in, an estimate out.

A window is a short time on all connections to one peer. Its busy time is when bytes were under way
and the peer took them: waits for an engine, on either side, are not in it. Windows are gathered
into segments of a tenth of a second of busy time; the rate follows the median of the last three, so
that one burst or one stall moves nothing, and jumps to it when it is far from what was thought.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from statistics import median
from typing import TYPE_CHECKING

from thunderserve.core.errors import InvalidArgumentError
from thunderserve.core.links import LinkMethod

if TYPE_CHECKING:
    from thunderserve.kvlink.measuring.probe import Probe

__all__ = ["LinkEstimate", "Window"]

_SEGMENT_S = 0.1
_SEGMENT_ROUND_TRIPS = 4
_MEDIAN_OF = 3
_SMOOTHING = 0.3
_JUMP_RATIO = 0.25
# What an application that has little to send shows of a link is at least its rate, if it is much.
_LEAST_LIMITED_BYTES = 1 << 20
_RETRANSMIT_MEMORY = 0.8


@dataclass(frozen=True, slots=True)
class Window:
    """What happened on the way to a peer in a short time.

    Attributes:
        acked_bytes: That the peer has confirmed.
        busy_s: With bytes under way that the peer had room for.
        sent_bytes: Handed to the network, repetitions included.
        repeated_bytes: Of those, sent again.
        rtt_s: Least round trip that was seen; 0 when unknown.
        short_of_data: True when the sender had less to send than the link would have taken.
    """

    acked_bytes: int
    busy_s: float
    sent_bytes: int = 0
    repeated_bytes: int = 0
    rtt_s: float = 0.0
    short_of_data: bool = False

    def __post_init__(self) -> None:
        numbers = (self.acked_bytes, self.busy_s, self.sent_bytes, self.repeated_bytes, self.rtt_s)
        if not all(math.isfinite(value) and value >= 0 for value in numbers):
            raise InvalidArgumentError(f"{self} has a value that is negative or not finite")


@dataclass(frozen=True, slots=True)
class LinkEstimate:
    """What is thought of a link; `add` gives the next one.

    Attributes:
        bytes_per_s: 0 until a segment is full.
        rtt_s: 0 when unknown.
        measured_s: When the rate was last confirmed, by the clock of `add`.
        method: What told the rate.
    """

    bytes_per_s: float = 0.0
    rtt_s: float = 0.0
    measured_s: float = 0.0
    method: LinkMethod = LinkMethod.TRAFFIC
    _segments: tuple[float, ...] = ()
    _acked_bytes: int = 0
    _busy_s: float = 0.0
    _sent_bytes: float = 0.0
    _repeated_bytes: float = 0.0

    @property
    def known(self) -> bool:
        """True once there is a rate."""
        return self.bytes_per_s > 0

    @property
    def retransmit_ratio(self) -> float:
        """Of the bytes sent lately, the share that was sent again."""
        return min(1.0, self._repeated_bytes / self._sent_bytes) if self._sent_bytes else 0.0

    def add(self, window: Window, now_s: float) -> LinkEstimate:
        """The estimate with one more window."""
        seen = replace(
            self,
            rtt_s=window.rtt_s or self.rtt_s,
            _sent_bytes=self._sent_bytes + window.sent_bytes,
            _repeated_bytes=self._repeated_bytes + window.repeated_bytes,
        )
        if window.busy_s <= 0 or (window.short_of_data and not self._is_faster(window)):
            return seen
        acked, busy_s = self._acked_bytes + window.acked_bytes, self._busy_s + window.busy_s
        if busy_s < max(_SEGMENT_S, _SEGMENT_ROUND_TRIPS * seen.rtt_s):
            return replace(seen, _acked_bytes=acked, _busy_s=busy_s)
        done = replace(seen, _acked_bytes=0, _busy_s=0.0)
        # Nothing at all came through: that is an outage, not a slow link.
        return done._with_segment(acked / busy_s, now_s) if acked else done  # noqa: SLF001 - itself

    def probed(self, probe: Probe, now_s: float) -> LinkEstimate:
        """The estimate after a probe that found a rate; transfers go on from there."""
        return replace(
            self,
            bytes_per_s=probe.bytes_per_s,
            rtt_s=probe.rtt_s,
            measured_s=now_s,
            method=LinkMethod.PROBE,
            _segments=(),
            _acked_bytes=0,
            _busy_s=0.0,
            _sent_bytes=_RETRANSMIT_MEMORY * self._sent_bytes + probe.sent_bytes,
            _repeated_bytes=_RETRANSMIT_MEMORY * self._repeated_bytes + probe.repeated_bytes,
        )

    def _is_faster(self, window: Window) -> bool:
        if window.acked_bytes < _LEAST_LIMITED_BYTES:
            return False
        return window.acked_bytes / window.busy_s > self.bytes_per_s

    def _with_segment(self, rate: float, now_s: float) -> LinkEstimate:
        segments = (*self._segments, rate)[-_MEDIAN_OF:]
        middle = median(segments)
        known = self.bytes_per_s
        if not known or abs(middle / known - 1) > _JUMP_RATIO:
            smooth = middle
        else:
            smooth = known + _SMOOTHING * (middle - known)
        return replace(
            self,
            bytes_per_s=smooth,
            measured_s=now_s,
            method=LinkMethod.TRAFFIC,
            _segments=segments,
            _sent_bytes=_RETRANSMIT_MEMORY * self._sent_bytes,
            _repeated_bytes=_RETRANSMIT_MEMORY * self._repeated_bytes,
        )
