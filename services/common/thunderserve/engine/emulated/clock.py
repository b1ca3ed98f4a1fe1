"""The clock of an emulated engine: real time, faster or slower, or standing still."""

from __future__ import annotations

import asyncio
import math
import time
from typing import TYPE_CHECKING

from thunderserve.core.errors import InvalidArgumentError

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["EmulatedClock"]

LONGEST_SLEEP_S = 0.25


class EmulatedClock:
    """Seconds that pass `speed` times as fast as real ones, unless somebody slows them down.

    Clocks of the same speed that nobody slowed down agree, in one process and between processes of
    one machine: all count from the same moment.

    Args:
        speed: Emulated seconds per real second, > 0.
        monotonic: Real seconds that never go back.
    """

    def __init__(
        self, speed: float = 1.0, *, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        if not (math.isfinite(speed) and speed > 0):
            raise InvalidArgumentError(f"speed is {speed}; it must be > 0", param="speed")
        self._speed = speed
        self._rate = speed
        self._monotonic = monotonic
        self._base_s, self._base_real_s = 0.0, 0.0

    @property
    def speed(self) -> float:
        """Emulated seconds per real second while nobody slows it down."""
        return self._speed

    def now_s(self) -> float:
        """Emulated seconds since a moment that all clocks share."""
        return self._base_s + (self._monotonic() - self._base_real_s) * self._rate

    def slow_down(self, factor: float) -> None:
        """Let time pass so many times slower from now on: 1 as usual, infinity not at all."""
        if not factor > 0:
            raise InvalidArgumentError(f"factor is {factor}; it must be > 0", param="factor")
        self._base_s, self._base_real_s = self.now_s(), self._monotonic()
        self._rate = self._speed / factor

    async def sleep(self, seconds: float) -> None:
        """Let so many emulated seconds pass."""
        await self.sleep_until(self.now_s() + seconds, asyncio.Event())

    async def sleep_until(self, moment_s: float, sooner: asyncio.Event) -> None:
        """Wait for a moment, or for an event if that comes first."""
        while not sooner.is_set() and (left_s := moment_s - self.now_s()) > 0:
            real_s = left_s / self._rate if self._rate else math.inf
            try:
                # Not longer: the rate may change meanwhile.
                async with asyncio.timeout(min(real_s, LONGEST_SLEEP_S)):
                    await sooner.wait()
            except TimeoutError:
                continue
