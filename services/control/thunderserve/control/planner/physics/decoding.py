"""Decode of one group: a continuous batch that shares the group, and the memory that bounds it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from thunderserve.control.planner.physics.passes import decode_steps_s
from thunderserve.control.planner.physics.population import Population
from thunderserve.control.planner.physics.prefilling import HIGHEST_UTILISATION
from thunderserve.control.planner.physics.sample import FloatArray, Sample

if TYPE_CHECKING:
    from collections.abc import Sequence

    from thunderserve.control.planner.physics.waiting import Levels
    from thunderserve.core.cost import StageRates

__all__ = ["DecodeFigures", "step_bound_s"]


@dataclass(frozen=True, eq=False)
class DecodeFigures:
    """Decode of one group.

    Attributes:
        population: The requests that it holds.
        steps_s: Seconds per token with n requests, for n = 1, 2, ...
        fits: Whether the group can hold each request at all.
    """

    sample: Sample
    population: Population
    steps_s: FloatArray
    fits: FloatArray

    @classmethod
    def of(
        cls,
        replica: Sequence[StageRates],
        sample: Sample,
        levels: Levels,
        *,
        room_tokens: float,
        max_batch: int,
        hold_s: float,
    ) -> DecodeFigures | None:
        """What these stages decode of a sample; None when not even one request fits.

        Args:
            replica: The stages.
            sample: The requests.
            levels: Of arrivals.
            room_tokens: Whose KV cache fits in memory.
            max_batch: Requests that the engine runs at once.
            hold_s: How long memory is set aside for a request before it decodes.
        """
        slots = sample.slots(room_tokens)
        if slots < 1:
            return None
        batch = np.arange(1, min(slots, max_batch) + 1, dtype=np.float64)
        steps_s = np.maximum.accumulate(decode_steps_s(replica, batch, sample.context))
        rates = np.maximum.accumulate(batch / (sample.mean_steps * steps_s))
        # Requests whose memory is set aside: those that decode, and those that will.
        held = batch + rates * hold_s
        fits = max(1, int(np.searchsorted(held, slots, side="right")))
        # A full group is as fast as what fits on average, parts of a request included.
        full = np.interp(slots, [0.0, *held], [0.0, *rates])
        rates = np.array([0.0, *rates[: fits - 1], full])
        work = sample.steps
        square = sample.mean(work**2) / max(1.0, sample.mean(work)) ** 2
        residence_s = sample.mean_steps * float(steps_s[fits - 1])
        population = Population(levels, rates, 1.0 if square == 0 else square, residence_s)
        return cls(sample, population, steps_s[:fits], sample.fits(room_tokens))

    @property
    def capacity_rps(self) -> float:
        """Requests per second, at most."""
        return HIGHEST_UTILISATION * self.population.capacity_rps

    @property
    def idle_s(self) -> float:
        """Seconds per token of a request alone."""
        return float(self.steps_s[0])

    def in_time(self, load_rps: FloatArray, step_s: FloatArray, slack_s: FloatArray) -> FloatArray:
        """Probability that answers keep their pace and memory is there in time.

        Args:
            load_rps: Requests per second.
            step_s: What a request's steps may take on average.
            slack_s: What a request may wait for memory.

        Returns:
            (loads, levels, requests).
        """
        population = self.population
        shares = population.shares(population.loads(load_rps))
        late = population.waits_longer(load_rps, shares, slack_s)
        return self._paced(shares, step_s) * (1 - late) * self.fits

    def _paced(self, shares: FloatArray, bound_s: FloatArray) -> FloatArray:
        """Probability that a request's mean step is no longer than its bound.

        A short answer sees the batch that it meets; a long one sees many, whose mean varies less:
        by the variance of the time average of a process that forgets in a mean residence.
        """
        # An arrival that finds n runs with n + 1; where all is full it replaces one.
        found = np.concatenate([shares[..., :-2], shares[..., -2:].sum(axis=-1)[..., None]], -1)
        mean = (found @ self.steps_s)[..., None]
        windows = np.maximum(self.sample.steps, 1e-9) / self.sample.mean_steps
        spread = np.sqrt(2 / windows * (1 - (1 - np.exp(-windows)) / windows))
        limit = mean + (bound_s - mean) / np.minimum(spread, 1.0)
        below = np.concatenate([np.zeros((*found.shape[:-1], 1)), np.cumsum(found, axis=-1)], -1)
        index = np.searchsorted(self.steps_s * (1 - 1e-12), limit, side="right")
        paced: FloatArray = np.minimum(1.0, np.take_along_axis(below, index, axis=-1))
        return np.where(self.sample.steps > 0, paced, 1.0)

    def step_s(self, load_rps: float) -> float:
        """Mean seconds per token at that load."""
        shares = self.population.shares(np.array([load_rps]))[0]
        return float(shares[:-2] @ self.steps_s[:-1] + shares[-2:].sum() * self.steps_s[-1])


def step_bound_s(
    sample: Sample,
    *,
    tpot_s: float,
    e2e_s: float | None,
    exposed_s: FloatArray,
    first_s: FloatArray,
) -> FloatArray:
    """What a request's steps may take on average, beside what its transfer takes from them."""
    steps = np.maximum(sample.steps, 1e-9)
    bound = tpot_s - exposed_s / steps
    if e2e_s is not None:
        bound = np.minimum(bound, (e2e_s - first_s - exposed_s) / steps)
    allowed: FloatArray = np.where(sample.steps > 0, bound, np.inf)
    return allowed
