"""Prefill of one group: how long prompts take, and how long they wait for each other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from thunderserve.control.planner.physics.passes import PromptTimes, pass_s, prompt_times
from thunderserve.control.planner.physics.sample import FloatArray, Sample
from thunderserve.control.planner.physics.waiting import Levels, Waits

if TYPE_CHECKING:
    from collections.abc import Sequence

    from thunderserve.core.cost import StageRates

__all__ = ["HIGHEST_UTILISATION", "PrefillFigures"]

HIGHEST_UTILISATION = 0.95
"""Of any group: beyond it queues have no useful length."""


@dataclass(frozen=True, eq=False)
class PrefillFigures:
    """Prefill of one group.

    Attributes:
        times: Of the sample's prompts.
        mean_s: Mean time that a prompt occupies the busiest stage.
        mean_square_s2: Mean of its square.
        full_pass_s: What a whole chunk occupies it.
        stages: Of the pipeline.
        fits: Whether the group can hold each prompt at all.
    """

    sample: Sample
    levels: Levels
    times: PromptTimes
    mean_s: float
    mean_square_s2: float
    full_pass_s: float
    stages: int
    fits: FloatArray

    @classmethod
    def of(
        cls,
        replica: Sequence[StageRates],
        sample: Sample,
        levels: Levels,
        *,
        chunk_tokens: float,
        room_tokens: float,
    ) -> PrefillFigures:
        """What these stages prefill of a sample, with room for the KV cache of so many tokens."""
        times = prompt_times(replica, sample.prompt, chunk_tokens)
        tokens = np.array([float(chunk_tokens)])
        passes = [pass_s(rates, tokens, tokens * tokens / 2, 0 * tokens)[0] for rates in replica]
        return cls(
            sample,
            levels,
            times,
            sample.mean(times.busy_s),
            sample.mean(times.busy_s**2),
            float(max(passes)),
            len(replica),
            (sample.prompt <= room_tokens).astype(np.float64),
        )

    @property
    def capacity_rps(self) -> float:
        """Requests per second, at most."""
        return HIGHEST_UTILISATION / self.mean_s

    @property
    def idle_s(self) -> float:
        """Mean time to the first token without a queue."""
        return self.sample.mean(self.times.latency_s)

    def _waits(self, load_rps: FloatArray) -> Waits:
        return Waits.at(
            self.levels,
            load_rps * self.mean_s,
            np.array(self.mean_s),
            np.array(self.mean_square_s2),
        )

    def mean_wait_s(self, load_rps: float) -> float:
        """Mean wait of a prompt until it starts."""
        return float(self._waits(np.array([load_rps])).mean_s()[0])

    def in_time(self, load_rps: FloatArray, bound_s: FloatArray) -> FloatArray:
        """Probability that a first token comes within its bound: (loads, levels, requests).

        Prompts that wait share a pass, up to a chunk, and all end with it: a prompt that found a
        backlog is delayed by half a pass of it, and by a whole one in every further stage.
        """
        slack_s = bound_s - self.times.latency_s
        more = self.stages - 0.5
        slack_s = np.maximum(slack_s - more * self.full_pass_s, slack_s / (1 + more))
        met = (1 - self._waits(load_rps).longer_than(slack_s)) * self.fits
        return np.where((load_rps * self.mean_s < 1)[:, None, None], met, 0.0)
