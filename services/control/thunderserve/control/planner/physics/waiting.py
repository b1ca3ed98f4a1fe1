"""How long requests wait for a server whose arrivals are a Poisson process between rate levels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from thunderserve.control.planner.physics.sample import FloatArray

if TYPE_CHECKING:
    from thunderserve.core.workload import Arrivals

__all__ = ["Levels", "Waits"]

_FULL = 1 - 1e-9


@dataclass(frozen=True, eq=False)
class Levels:
    """The levels of arrivals as arrays.

    Attributes:
        factor: Rate of each, of the mean rate.
        time: Share of the time.
        request: Share of the requests.
        dwell_s: Mean time until the next level is drawn.
        entry: How often each is drawn.
    """

    factor: FloatArray
    time: FloatArray
    request: FloatArray
    dwell_s: FloatArray
    entry: FloatArray

    @classmethod
    def of(cls, arrivals: Arrivals) -> Levels:
        """Of a workload's arrivals."""
        factor, time, dwell_s = (
            np.array([getattr(level, name) for level in arrivals.levels])
            for name in ("rate_factor", "time_ratio", "dwell_s")
        )
        return cls(factor, time, factor * time, dwell_s, np.array(arrivals.entry_ratios))

    def smoothed(self, memory_s: float) -> FloatArray:
        """Factors as something sees them that remembers arrivals for so long.

        A level that is short beside the memory is hardly noticed; the mean stays 1.
        """
        kept = 1 / (1 + memory_s / self.dwell_s)
        pulled = 1 + (self.factor - 1) * kept
        seen: FloatArray = pulled / float(pulled @ self.time)
        return seen


@dataclass(frozen=True, eq=False)
class Waits:
    """Waiting times at many mean loads of one server.

    The backlog is a Brownian motion that is reflected at zero, its drift set by the present level:
    in level i it grows by (load_i - 1) per second, and its variance by E[S^2] / E[S], times a load
    of more than 1. Its tail is a sum of exponentials in closed form, over short bursts, long ones,
    the overload of either and the time to drain it. For one level it has the mean wait of Pollaczek
    and Khinchine, and is exact for exponential service.

    Source: Asmussen, "Stationary distributions for fluid flow models with or without Brownian
    noise" (1995).

    Attributes:
        levels: Of arrivals.
        busy: Load of every level at every mean load: (loads, levels).
        decay: Of the exponentials, per second: (loads, terms).
        tail: Probability of a level and of a backlog, by term: (loads, levels, terms).
        local: How soon it is forgotten that a server idles: (loads, levels).
        idle: Share of the time that the server idles in each level: (loads, levels).
    """

    levels: Levels
    busy: FloatArray
    decay: FloatArray
    tail: FloatArray
    local: FloatArray
    idle: FloatArray

    @classmethod
    def at(
        cls, levels: Levels, load: FloatArray, mean_s: FloatArray, mean_square_s2: FloatArray
    ) -> Waits:
        """Waits at these loads (busy shares on average), by the service's first two moments."""
        load = np.minimum(load, _FULL)
        busy = load[:, None] * levels.factor
        # Half of the variance per second; of a server that has work, so of at least a full load.
        half = np.broadcast_to(mean_square_s2 / mean_s / 2, load.shape)[:, None]
        half = half * np.maximum(1.0, busy)
        if len(levels.factor) == 1:
            decay, vectors = (1 - busy) / half, np.ones((len(load), 1, 1))
        else:
            decay, vectors = _modes(levels, busy - 1, half)
        # How much of each exponential: each level's share of the time at a backlog of zero.
        whole = np.broadcast_to(levels.time[:, None], (len(load), len(levels.time), 1))
        tail = vectors * np.linalg.solve(vectors, whole).transpose(0, 2, 1)
        idle = half * (tail * decay[:, None, :]).sum(axis=2)
        # Between what one level alone forgets in, and what the quickest of all does.
        alone = np.abs(1 - busy) / half
        local = np.sqrt(alone * np.maximum(alone, decay.max(axis=1, keepdims=True)))
        return cls(levels, busy, decay, tail, local, np.maximum(idle, 0.0))

    def longer_than(self, slack_s: FloatArray) -> FloatArray:
        """Share of each level's requests that wait longer: (loads, levels, slacks)."""
        slack = np.maximum(slack_s, 0.0)
        # A server that idles makes nobody wait; that is felt as long as one level's own backlog.
        at_once = self.idle / self.levels.time
        at_once = at_once[:, :, None] * np.exp(-self.local[:, :, None] * slack)
        waiting = np.clip(self.backlog_beyond(slack) - at_once, 0.0, 1.0)
        late: FloatArray = np.where(slack_s < 0, 1.0, waiting)
        return late

    def mean_s(self) -> FloatArray:
        """Mean wait of all requests at each load."""
        factor = self.levels.factor
        backlog = (factor @ self.tail / np.maximum(self.decay, 1e-12)).sum(axis=-1)
        at_once = (factor * self.idle / np.maximum(self.local, 1e-12)).sum(axis=-1)
        mean: FloatArray = np.maximum(0.0, backlog - at_once)
        return mean

    def backlog_beyond(self, backlog_s: FloatArray) -> FloatArray:
        """Share of each level's time with more backlog: (loads, levels, backlogs)."""
        beyond = np.exp(-self.decay[:, :, None] * np.maximum(backlog_s, 0.0))
        found = (self.tail @ beyond) / self.levels.time[:, None]
        clipped: FloatArray = np.clip(found, 0.0, 1.0)
        return clipped


def _modes(levels: Levels, drift: FloatArray, half: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Decays z and vectors a of a (z^2 diag(half) + z diag(drift) + Q) = 0 with z > 0.

    Returns:
        (loads, terms) and (loads, levels, terms).
    """
    count = len(levels.factor)
    generator = (levels.entry[None, :] - np.eye(count)) / levels.dwell_s[:, None]
    companion = np.zeros((len(drift), 2 * count, 2 * count))
    companion[:, :count, count:] = np.eye(count)
    companion[:, count:, :count] = -generator.T / half[:, :, None]
    companion[:, count:, count:] = -(drift / half)[:, :, None] * np.eye(count)
    values, vectors = np.linalg.eig(companion)
    order = np.argsort(-values.real, axis=1)[:, :count]
    decay = np.maximum(np.take_along_axis(values.real, order, axis=1), 0.0)
    upper = np.take_along_axis(vectors.real[:, :count, :], order[:, None, :], axis=2)
    return decay, upper
