"""Reproducible draws: the same seed gives the same values on every platform."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Draws"]

_Item = TypeVar("_Item")
_MASK = 2**64 - 1


class Draws:
    """A stream of pseudo-random draws.

    Source: SplitMix64 (Steele, Lea, Flood, "Fast Splittable Pseudorandom Number Generators", 2014).
    """

    def __init__(self, seed: int) -> None:
        self._state = seed & _MASK

    def below(self, bound: int) -> int:
        """An integer in [0, bound); the bias is below bound / 2**64."""
        return self._next() % bound

    def uniform(self) -> float:
        """A number in (0, 1), never 0 and never 1."""
        return (self._next() >> 12) / 2**52 + 2**-53

    def exponential(self, mean: float) -> float:
        """An exponential variate; a mean of infinity gives infinity."""
        return -mean * math.log(self.uniform())

    def pick(self, items: Sequence[_Item]) -> _Item:
        """One of the items."""
        return items[self.below(len(items))]

    def _next(self) -> int:
        self._state = (self._state + 0x9E3779B97F4A7C15) & _MASK
        mixed = self._state
        mixed = ((mixed ^ (mixed >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
        mixed = ((mixed ^ (mixed >> 27)) * 0x94D049BB133111EB) & _MASK
        return mixed ^ (mixed >> 31)
