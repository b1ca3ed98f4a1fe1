"""How long to wait before the next try."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Backoff"]


class Backoff:
    """Delays that double from `first_s` to `longest_s`, each drawn from its upper half.

    The draw keeps a fleet that lost its server at one moment from coming back at one moment.
    """

    def __init__(
        self,
        *,
        first_s: float = 0.1,
        longest_s: float = 2.0,
        draw: Callable[[], float] = random.random,
    ) -> None:
        self._first_s = first_s
        self._longest_s = longest_s
        self._draw = draw
        self._bound_s = first_s

    def next_s(self) -> float:
        """The next delay; the one after it may be twice as long."""
        bound_s = self._bound_s
        self._bound_s = min(2 * bound_s, self._longest_s)
        return bound_s * (1 + self._draw()) / 2

    def reset(self) -> None:
        """Begin anew: the last try succeeded."""
        self._bound_s = self._first_s
