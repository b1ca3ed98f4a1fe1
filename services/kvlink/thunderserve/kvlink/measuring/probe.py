"""A link's rate from a few bytes that are sent for nothing else: where no transfer tells it.

::

    ---- PROBE, empty --->  <--- PROBE ----    the round trip, three times
    ---- PROBE, 256 KiB -->
    ---- PROBE, 256 KiB -->  <--- PROBE ----   and so on: at most 8 MiB, for at most half a second
                             <--- PROBE ----

The peer answers each frame when it has come. The rate is that of the second half: until then the
connection finds its pace, and what passes at once through the queues on the way has passed.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from thunderserve.kvlink.measuring.tcp_info import read_tcp_info
from thunderserve.kvlink.protocol import (
    HEADER_BYTES,
    FrameError,
    FrameKind,
    decode_header,
    encode_header,
    make_frame,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from thunderserve.kvlink.transport import Stream

__all__ = ["PROBE_BYTES", "PROBE_S", "Probe", "probe_link", "rate_of"]

PROBE_BYTES = 8 << 20
"""The most that a probe sends."""

PROBE_S = 0.5
"""For so long it sends; what is under way then still arrives."""

_PIECE = bytes(256 << 10)
_FRAME = encode_header(make_frame(FrameKind.PROBE, 0, 0, _PIECE))
_LAST_NUMBER = 1  # in the place of a room's; an answer repeats it
_LAST = encode_header(make_frame(FrameKind.PROBE, _LAST_NUMBER, 0))
_ROUND_TRIPS = 3


@dataclass(frozen=True, slots=True)
class Probe:
    """What a probe found.

    Attributes:
        bytes_per_s: 0 when it was called off before it could tell.
        rtt_s: The kernel's least, or, where it keeps that to itself, of three questions.
        sent_bytes: Handed to the network, repetitions included; 0 when unknown.
        repeated_bytes: Of those, sent again.
    """

    bytes_per_s: float
    rtt_s: float
    sent_bytes: int = 0
    repeated_bytes: int = 0


async def probe_link(stream: Stream, called_off: Callable[[], bool]) -> Probe:
    """Measure what `stream` runs over.

    Args:
        stream: Of a connection that carries no room; it can carry one afterwards.
        called_off: Asked before each piece: a transfer waits, send no more.

    Raises:
        StreamClosedError: The connection ended.
        FrameError: The peer answered something else.
    """
    connection = stream.info("socket")
    before = None if connection is None else read_tcp_info(connection)
    rtt_s = min([await _ask(stream) for _ in range(_ROUND_TRIPS)])
    begun_s = time.monotonic()
    _, answers_s = await asyncio.gather(_write(stream, called_off), _answers(stream))
    rate = 0.0 if called_off() else rate_of(len(_PIECE), [begun_s + rtt_s, *answers_s])
    after = None if connection is None else read_tcp_info(connection)
    if before is None or after is None:
        return Probe(rate, rtt_s)
    sent_bytes = after.sent_bytes - before.sent_bytes
    return Probe(
        rate, after.rtt_s or rtt_s, sent_bytes, after.repeated_bytes - before.repeated_bytes
    )


def rate_of(piece_bytes: int, marks_s: Sequence[float]) -> float:
    """Bytes a second of the second half of the pieces; 0 when nothing can be said.

    Args:
        piece_bytes: Size of each.
        marks_s: When the first could have been answered if it were empty, and when each was.
    """
    first, last = (len(marks_s) - 1) // 2, len(marks_s) - 1
    took_s = marks_s[last] - marks_s[first]
    return (last - first) * piece_bytes / took_s if took_s > 0 else 0.0


async def _ask(stream: Stream) -> float:
    begun_s = time.monotonic()
    await stream.write(_LAST)
    await _answers(stream)
    return time.monotonic() - begun_s


async def _write(stream: Stream, called_off: Callable[[], bool]) -> None:
    """Pieces while there is time."""
    begun_s = time.monotonic()
    for _ in range(PROBE_BYTES // len(_PIECE)):
        if called_off() or time.monotonic() - begun_s > PROBE_S:
            break
        await stream.write(_FRAME, _PIECE)
    await stream.write(_LAST)


async def _answers(stream: Stream) -> list[float]:
    """When each frame before the last one was answered."""
    header, answers_s = memoryview(bytearray(HEADER_BYTES)), list[float]()
    while True:
        await stream.read_into(header)
        answer = decode_header(header, max_payload_bytes=0)
        if answer.kind is not FrameKind.PROBE:
            raise FrameError(f"the peer answered a probe with {answer.kind.name}")
        if answer.room == _LAST_NUMBER:
            return answers_s
        answers_s.append(time.monotonic())
