"""Which wire mode finishes first; values in, a choice out."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from thunderserve.core.hardware import GIGABIT_PER_S
from thunderserve.core.kv_volume import wire_ratio
from thunderserve.core.request import WireMode

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["UNKNOWN_LINK_BYTES_PER_S", "WIRE_RATIOS", "Choice", "Speed", "choose_mode", "finish_s"]

WIRE_RATIOS = {mode: wire_ratio(mode) for mode in (WireMode.INT4, WireMode.RAW16)}
"""Bytes on the wire over 16-bit bytes, the coarsest mode first."""

UNKNOWN_LINK_BYTES_PER_S = GIGABIT_PER_S
"""What a link is taken for until it is measured: that of an ordinary rented host."""

_SWITCH_RATIO = 1.1
_FRAME_BYTES = 4 << 20


@dataclass(frozen=True, slots=True)
class Speed:
    """16-bit bytes per second of one mode, checksums included; infinite where it is not known."""

    encode_bytes_per_s: float = math.inf
    decode_bytes_per_s: float = math.inf


@dataclass(frozen=True, slots=True)
class Choice:
    """A mode and why, for people."""

    mode: WireMode
    reason: str


def finish_s(raw_bytes: int, mode: WireMode, link_bytes_per_s: float, speed: Speed) -> float:
    """From the first byte offered to the last one decoded, without the round trip.

    Encoding, the wire and decoding work beside each other, frame by frame: the slowest of them
    takes all bytes, the others one frame's.

    Args:
        raw_bytes: 16-bit bytes of the whole transfer, > 0.
        mode: int4 or raw16.
        link_bytes_per_s: Of the wire, > 0.
        speed: Of the mode.
    """
    stages_s_per_byte = (
        1 / speed.encode_bytes_per_s,
        WIRE_RATIOS[mode] / link_bytes_per_s,
        1 / speed.decode_bytes_per_s,
    )
    slowest = max(stages_s_per_byte)
    first_frame = min(raw_bytes, _FRAME_BYTES)
    return raw_bytes * slowest + first_frame * (sum(stages_s_per_byte) - slowest)


def choose_mode(
    raw_bytes: int,
    link_bytes_per_s: float,
    speeds: Mapping[WireMode, Speed],
    *,
    coarsest: WireMode = WireMode.INT4,
    previous: WireMode | None = None,
) -> Choice:
    """The mode that finishes first.

    Args:
        raw_bytes: 16-bit bytes of the transfer, > 0.
        link_bytes_per_s: Of the wire, > 0; 0 while it is unknown.
        speeds: Of each mode; one that is missing costs nothing.
        coarsest: The quality floor: no mode with fewer bits is chosen.
        previous: What was chosen last for this peer: another one must finish a tenth sooner, so
            that noise does not change it back and forth.
    """
    rate = link_bytes_per_s or UNKNOWN_LINK_BYTES_PER_S
    floor = WIRE_RATIOS[coarsest]
    times = {
        mode: finish_s(raw_bytes, mode, rate, speeds.get(mode, Speed()))
        for mode, ratio in WIRE_RATIOS.items()
        if ratio >= floor
    }
    best = min(times, key=lambda mode: times[mode])
    if previous in times and times[previous] < _SWITCH_RATIO * times[best]:
        best = previous
    return Choice(best, _reason(best, times, link_bytes_per_s))


def _reason(best: WireMode, times: Mapping[WireMode, float], link_bytes_per_s: float) -> str:
    measured = f"{link_bytes_per_s / GIGABIT_PER_S:.3g} Gbit/s"
    link = measured if link_bytes_per_s else "a link that is not measured yet"
    others = [mode for mode in times if mode is not best]
    if not others:
        return "nothing coarser is allowed"
    other = min(others, key=lambda mode: times[mode])
    gain = times[other] / times[best]
    if gain < 1:
        return f"as before: {other} would be {1 / gain:.2f}x as fast on {link}"
    return f"{gain:.2f}x as fast as {other} on {link}"
