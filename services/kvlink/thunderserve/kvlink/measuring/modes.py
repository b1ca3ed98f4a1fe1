"""The wire mode of rooms that leave it to the sidecar, and what is told of links."""

from __future__ import annotations

from typing import TYPE_CHECKING

from thunderserve.core.links import LinkMeasurement
from thunderserve.core.request import WireMode
from thunderserve.kvlink.measuring.choice import Choice, choose_mode

if TYPE_CHECKING:
    from collections.abc import Callable

    from thunderserve.kvlink.measuring.meter import LinkMeter
    from thunderserve.kvlink.measuring.speeds import CodecSpeeds

__all__ = ["WireModes"]

_MAX_PEERS = 64
_STALE_S = 600.0
_LEAST_BYTES = 256 * 1024
_SMOOTHING = 0.1


class WireModes:
    """Chooses, and remembers for each peer what was chosen last.

    Args:
        meter: Links.
        speeds: This host's codecs.
        coarsest: The operator's quality floor.
        clock: Seconds that only grow; the meter's.
    """

    def __init__(
        self,
        meter: LinkMeter,
        speeds: CodecSpeeds,
        *,
        coarsest: WireMode,
        clock: Callable[[], float],
    ) -> None:
        self.meter = meter
        self.speeds = speeds
        self._coarsest = coarsest
        self._clock = clock
        self._chosen: dict[str, Choice] = {}
        self._written: dict[str, float] = {}

    def choose(self, peer: str, raw_bytes: int, decode_rates: dict[WireMode, float]) -> Choice:
        """How a room travels to a peer.

        Args:
            peer: `host:port` of its sidecar.
            raw_bytes: 16-bit bytes of the room.
            decode_rates: What the peer said of itself; empty when nothing.
        """
        before = self._chosen.pop(peer, None)
        rate = self.meter.estimate(peer).bytes_per_s
        choice = choose_mode(
            raw_bytes,
            min(rate, self._written.get(peer, rate)),
            self.speeds.speeds(decode_rates),
            coarsest=self._coarsest,
            previous=before.mode if before else None,
        )
        if len(self._chosen) >= _MAX_PEERS:
            del self._chosen[next(iter(self._chosen))]
        self._chosen[peer] = choice
        return choice

    def wrote(self, peer: str, wire_bytes: int, seconds: float) -> None:
        """A frame was handed to the system: encrypting it may be slower than a fast link."""
        if wire_bytes < _LEAST_BYTES or seconds <= 0:
            return
        rate = wire_bytes / seconds
        known = self._written.pop(peer, rate)
        self._written[peer] = known + _SMOOTHING * (rate - known)
        if len(self._written) > _MAX_PEERS:
            del self._written[next(iter(self._written))]

    def measurements(self) -> tuple[LinkMeasurement, ...]:
        """Every link whose rate is known and not stale, by peer."""
        now_s = self._clock()
        return tuple(
            self.measurement(peer)
            for peer, found in sorted(self.meter.estimates.items())
            if now_s - found.measured_s < _STALE_S
        )

    def measurement(self, peer: str) -> LinkMeasurement:
        """Of a link whose rate is known, however long ago it was measured."""
        found = self.meter.estimate(peer)
        chosen = self._chosen.get(peer, Choice(WireMode.DEFAULT, ""))
        return LinkMeasurement(
            peer_address=peer,
            bytes_per_s=found.bytes_per_s,
            rtt_s=found.rtt_s,
            retransmit_ratio=found.retransmit_ratio,
            age_s=max(0.0, self._clock() - found.measured_s),
            method=found.method,
            wire_mode=chosen.mode,
            wire_reason=chosen.reason,
        )
