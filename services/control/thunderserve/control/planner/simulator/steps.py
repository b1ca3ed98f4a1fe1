"""Many decode steps at once: their time in closed form.

A step's time is the highest of a few straight lines in the context that it finds, and every step
lengthens the context by one token. So n steps take an arithmetic series on every piece.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Line", "Steps", "lines_of"]

_TOLERANCE = 1e-7
_NARROW_TOKENS = 4.0


@dataclass(frozen=True, slots=True)
class Line:
    """A step takes base_s + slope_s * context, for contexts up to `until`."""

    until: float
    base_s: float
    slope_s: float

    def at(self, context: float) -> float:
        """Time of a step that finds that context."""
        return self.base_s + self.slope_s * context


Lines = tuple[Line, ...]


@dataclass(frozen=True, slots=True)
class Steps:
    """Steps one after another, the first of which finds a context of `context` tokens.

    Attributes:
        lines: Of the batch; the last holds for all longer contexts too.
        context: Mean over the batch.
    """

    lines: Lines
    context: float

    def duration_s(self, count: int) -> float:
        """Time of that many steps."""
        total, done = 0.0, 0.0
        for line in self.lines:
            most = min(count, self._last_step(line)) - done
            if most > 0:
                total += _series_s(line, self.context + done, most)
                done += most
        return total

    def count_within(self, duration_s: float) -> int:
        """The fewest steps, at least one, that take at least so long."""
        left, done = duration_s, 0.0
        for line in self.lines:
            most, start = self._last_step(line) - done, self.context + done
            if most <= 0:
                continue
            piece_s = _series_s(line, start, most) if most < math.inf else math.inf
            if piece_s >= left:
                return max(1, int(done) + _fewest(line, start, left))
            left -= piece_s
            done += most
        raise AssertionError("the last line has no end")

    def _last_step(self, line: Line) -> float:
        """Steps until the context is beyond the line."""
        return math.inf if line.until == math.inf else math.floor(line.until - self.context) + 1


def _series_s(line: Line, context: float, count: float) -> float:
    return count * line.at(context) + line.slope_s * count * (count - 1) / 2


def _fewest(line: Line, context: float, duration_s: float) -> int:
    """The fewest steps on one line that take at least so long: a quadratic, rounded up."""
    first = line.at(context) - line.slope_s / 2
    root = math.sqrt(first * first + 2 * line.slope_s * max(0.0, duration_s))
    count = math.ceil(2 * max(0.0, duration_s) / (first + root))
    while count > 0 and _series_s(line, context, count - 1) >= duration_s:
        count -= 1
    while _series_s(line, context, count) < duration_s:
        count += 1
    return count


def lines_of(step_s: Callable[[float], float], longest: float) -> Lines:
    """The straight pieces of a convex function of the context, from 1 to `longest` tokens.

    Tangents at both ends meet where a piece begins, or above a piece between; the function is
    only asked for values, so any cost model can be looked at.
    """
    pieces = _pieces(step_s, 1.0, max(longest, 1.0 + _NARROW_TOKENS))
    last = pieces[-1]
    return (*pieces[:-1], Line(math.inf, last.base_s, last.slope_s))


def _pieces(step_s: Callable[[float], float], low: float, high: float) -> list[Line]:
    at_low, at_high = step_s(low), step_s(high)
    near = min(1.0, (high - low) / _NARROW_TOKENS)
    rising = (step_s(low + near) - at_low) / near
    falling = (at_high - step_s(high - near)) / near
    first = Line(high, at_low - rising * low, rising)
    last = Line(high, at_high - falling * high, falling)
    slack = _TOLERANCE * at_high
    if high - low <= _NARROW_TOKENS or abs(first.at(high) - at_high) <= slack:
        return [first]
    bend = last.slope_s - first.slope_s
    meet = (first.base_s - last.base_s) / bend if bend > 0 else low
    if not low < meet < high:  # not convex: look at each half
        meet = (low + high) / 2
    if abs(step_s(meet) - first.at(meet)) <= slack:
        return [Line(meet, first.base_s, first.slope_s), last]
    return _pieces(step_s, low, meet) + _pieces(step_s, meet, high)
