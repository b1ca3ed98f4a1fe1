"""How long the emulated engine takes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

__all__ = ["EmulatedTimes"]


@dataclass(frozen=True, slots=True)
class EmulatedTimes:
    """Seconds, as a cost model says.

    Attributes:
        prefill_s: Of a prompt of so many tokens; prompts are computed one after another.
        decode_step_s: Of one step of a batch of so many requests, which gives each one token.
    """

    prefill_s: Callable[[int], float]
    decode_step_s: Callable[[int], float]
    start_s: float = 0.0
    flip_s: float = 0.0
