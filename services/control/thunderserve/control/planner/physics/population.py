"""How many requests a group holds at a load: a queue whose speed depends on its length."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from thunderserve.control.planner.physics.sample import FloatArray
from thunderserve.control.planner.physics.waiting import Levels, Waits

__all__ = ["Population"]

_FULL = 1 - 1e-9


@dataclass(frozen=True, eq=False)
class Population:
    """Requests that share a group, at most so many; more wait, first come, first served.

    With n requests the group completes `rate_rps[n]`. When requests share it fairly, the number of
    them does not depend on how their lengths are distributed, so it is that of a birth-and-death
    chain. Source: Bonald, Proutiere, "Insensitivity in processor-sharing networks" (2002).

    Attributes:
        rate_rps: For n = 0, 1, ... up to the most requests; ascending.
        mean_square_ratio: Mean square of a request's work over the square of its mean.
        residence_s: How long a mean request stays in a full group.
    """

    levels: Levels
    rate_rps: FloatArray
    mean_square_ratio: float
    residence_s: float

    @property
    def capacity_rps(self) -> float:
        """Where the queue outside begins to grow without end."""
        return float(self.rate_rps[-1])

    def loads(self, load_rps: FloatArray) -> FloatArray:
        """Rates of every level as the group feels them: (loads, levels)."""
        felt: FloatArray = load_rps[:, None] * self.levels.smoothed(self.residence_s)
        return felt

    def shares(self, loads: FloatArray) -> FloatArray:
        """Probability that an arrival finds n requests inside: (..., n); n is at most the most."""
        numbers = np.arange(len(self.rate_rps))
        filling = np.minimum(loads / self.capacity_rps, _FULL)[..., None]
        # Relative to the full group's rate, so that nothing overflows.
        scale = np.log(self.rate_rps[1:] / self.capacity_rps)
        logs = numbers * np.log(np.maximum(filling, 1e-300))
        logs[..., 1:] -= np.cumsum(scale)
        weights = np.exp(logs - logs.max(axis=-1, keepdims=True))
        weights[..., -1] /= 1 - filling[..., 0]
        shares: FloatArray = weights / weights.sum(axis=-1, keepdims=True)
        return shares

    def waits_longer(
        self, load_rps: FloatArray, shares: FloatArray, slack_s: FloatArray
    ) -> FloatArray:
        """Probability that a request waits outside for longer: (loads, levels, slacks).

        In a steady level all wait alike behind a full group. Bursts add a backlog; what a full
        group holds anyway is not waited for.
        """
        mean_s = 1 / self.capacity_rps
        ratio = self.mean_square_ratio
        slack = np.maximum(slack_s, 0.0)
        filling = self.loads(load_rps) / self.capacity_rps
        decay = 2 * np.maximum(0.0, 1 - filling) / (mean_s * ratio)
        steady = shares[..., -1:] * np.exp(-decay[..., None] * slack)
        if len(self.levels.factor) > 1:
            waits = Waits.at(
                self.levels, load_rps * mean_s, np.array(mean_s), np.array(ratio * mean_s**2)
            )
            inside_s = self.residence_s * ratio / 2
            steady = np.where(filling[..., None] < 1, steady, 0.0)
            steady = np.maximum(steady, waits.backlog_beyond(slack + inside_s))
        stable = (load_rps < self.capacity_rps)[:, None, None]
        late: FloatArray = np.where(stable, np.clip(steady, 0.0, 1.0), 1.0)
        return late
