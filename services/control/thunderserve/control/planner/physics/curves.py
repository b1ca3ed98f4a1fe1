"""How many requests a group lets meet their bounds, as its load rises."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from thunderserve.control.planner.physics.sample import FloatArray

__all__ = ["LOAD_SHARES", "hull", "loss_lines", "most_on_target_rps", "until_best"]

_FAR, _NEAR = 14, 7
LOAD_SHARES = np.concatenate(
    [0.62 * (np.arange(_FAR) / (_FAR - 1)) ** 2, np.linspace(0.68, 1.0, _NEAR)]
)
"""Shares of a group's capacity at which attainment is looked at."""

_TOLERANCE = 2e-3
_NOISE = 1e-4

Points = list[tuple[float, float]]


def hull(loads: FloatArray, ratios: FloatArray) -> Points:
    """Requests per second in time over requests per second: the least concave curve above all.

    Between an idle group and its best load, what is in time is concave anyway, or nearly. Beyond,
    where it falls, the hull is too kind, but no flow goes there: it would gain by serving less.
    Corners that hardly stand out are left out, below the curve.
    """
    corners: Points = []
    for x, y in zip(loads.tolist(), (loads * ratios).tolist(), strict=True):
        while len(corners) > 1 and _stands_out(corners[-2], corners[-1], (x, y)) <= 0:
            corners.pop()
        corners.append((x, y))
    tolerance = _TOLERANCE * max(y for _, y in corners)
    while len(corners) > 2:  # noqa: PLR2004 - the ends stay
        heights = [
            _stands_out(corners[i - 1], corners[i], corners[i + 1])
            for i in range(1, len(corners) - 1)
        ]
        lowest = min(range(len(heights)), key=heights.__getitem__)
        if heights[lowest] > tolerance:
            break
        del corners[lowest + 1]
    return corners


def _stands_out(
    left: tuple[float, float], middle: tuple[float, float], right: tuple[float, float]
) -> float:
    """Height of a point above the line between its neighbours."""
    part = (middle[0] - left[0]) / (right[0] - left[0])
    return middle[1] - (left[1] + part * (right[1] - left[1]))


def until_best(corners: Points) -> Points:
    """The hull up to where most are in time; all of it when none ever are."""
    best = max(range(len(corners)), key=lambda i: corners[i][1])
    return corners[: best + 1] if best else corners


def loss_lines(corners: Points, idle_ratio: float) -> tuple[tuple[float, float], ...]:
    """What is missed beyond what an idle group misses, as lines.

    Returns:
        (slope, offset), convex: at a load, the highest of 0 and slope * load - offset is missed.
    """
    lines = []
    for (low, met), (high, more) in pairwise(corners):
        gain = (more - met) / (high - low)
        if idle_ratio - gain > _NOISE:
            lines.append((idle_ratio - gain, max(0.0, met - gain * low)))
    return tuple(lines)


def most_on_target_rps(corners: Sequence[tuple[float, float]], target_ratio: float) -> float:
    """The highest load of which that share is in time."""
    best = 0.0
    for (low, met), (high, more) in pairwise(corners):
        if more >= target_ratio * high:
            best = high
        elif met >= target_ratio * low:
            spare = met - target_ratio * low
            return low + (high - low) * spare / (spare + target_ratio * high - more)
    return best
