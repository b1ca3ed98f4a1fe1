"""What one group can do in its phase."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from thunderserve.control.planner.physics.colocating import ColocatedFigures
from thunderserve.control.planner.physics.decoding import DecodeFigures, step_bound_s
from thunderserve.control.planner.physics.prefilling import PrefillFigures
from thunderserve.control.planner.physics.sample import Sample
from thunderserve.core.plan import Phase

if TYPE_CHECKING:
    from thunderserve.control.planner.physics.passes import PromptTimes
    from thunderserve.control.planner.physics.sample import FloatArray
    from thunderserve.control.planner.physics.waiting import Waits
    from thunderserve.core.slo import Slo

__all__ = ["GroupFigures", "Transfer", "pair_in_time"]


@dataclass(frozen=True, slots=True)
class Transfer:
    """Moving a KV cache between two groups: seconds per prompt token, and once."""

    s_per_token: float = 0.0
    latency_s: float = 0.0

    def seconds(self, tokens: float) -> float:
        """Time to move that many tokens' KV cache, all of it at once."""
        return self.latency_s + self.s_per_token * tokens

    def exposed_s(self, prompts: FloatArray, times: PromptTimes) -> FloatArray:
        """What of the transfer comes after the first token, for every prompt.

        A chunk can leave when it is computed and the chunks before it are gone. With t_k the moment
        at which chunk k is computed, C_k the tokens before it and r seconds per token, the last
        byte arrives at the latest of t_k + r * (P - C_k) over all k. The moments lie further apart
        from chunk to chunk (attention grows), so this is convex in k and the latest is the first or
        the last: link-bound, r * P after the first chunk is there; or compute-bound, r * the last
        chunk after all are.
        """
        whole = self.s_per_token * prompts
        hidden = times.latency_s - times.first_chunk_s
        exposed: FloatArray = np.maximum(self.s_per_token * times.last_tokens, whole - hidden)
        return self.latency_s + exposed


@dataclass(frozen=True, eq=False)
class GroupFigures:
    """What a group can do in its phase.

    Attributes:
        prefill: None when it only decodes.
        decode: None when it does not decode alone, or not even one request fits.
        colocated: None when it does not do both, or not even one request fits.
    """

    phase: Phase
    sample: Sample
    prefill: PrefillFigures | None = None
    decode: DecodeFigures | None = None
    colocated: ColocatedFigures | None = None

    @property
    def _own(self) -> PrefillFigures | DecodeFigures | ColocatedFigures | None:
        return self.prefill or self.decode or self.colocated

    @property
    def capacity_rps(self) -> float:
        """Requests per second, at most; 0 when the model does not fit."""
        return self._own.capacity_rps if self._own else 0.0

    @property
    def idle_s(self) -> float:
        """How slow it is when idle: mean time to the first token, time per later token."""
        return self._own.idle_s if self._own else math.inf

    @property
    def times(self) -> PromptTimes:
        """Of prompts, of a group that computes them."""
        owner = self.prefill or self.colocated
        assert owner is not None  # noqa: S101 - callers ask groups of the right phase
        return owner.times

    def mean_first_s(self, load_rps: float) -> float:
        """Mean time to the first token at that load, of a group that only prefills."""
        assert self.prefill is not None  # noqa: S101 - callers ask groups of the right phase
        return self.prefill.idle_s + self.prefill.mean_wait_s(load_rps)

    def step_s(self, load_rps: float) -> float:
        """Mean seconds per later token at that load; 0 of a group that only prefills."""
        later = self.decode or self.colocated
        return later.step_s(load_rps) if later else 0.0

    def begun(self, load_rps: FloatArray, bound_s: float) -> FloatArray:
        """Probability of a first token within a bound: (loads, levels, requests)."""
        bounds_s = np.full_like(self.sample.prompt, bound_s)
        if self.prefill:
            return self.prefill.in_time(load_rps, bounds_s)
        assert self.colocated is not None  # noqa: S101 - callers ask groups of the right phase
        return self.colocated.begun(load_rps, bounds_s)

    def in_time(
        self,
        load_rps: FloatArray,
        slo: Slo,
        *,
        exposed_s: FloatArray | None = None,
        first_s: FloatArray | None = None,
    ) -> FloatArray:
        """Probability that the group does its part in time: (loads, levels, requests).

        Args:
            load_rps: Requests per second.
            slo: The bounds.
            exposed_s: What a transfer to it takes after the first token.
            first_s: When first tokens come, of a group that only decodes.
        """
        sample = self.sample
        bound_s = np.full_like(sample.prompt, slo.ttft_s)
        if self.prefill:
            return self.prefill.in_time(load_rps, bound_s)
        nothing = np.zeros_like(sample.prompt)
        first_s = self.times.latency_s if self.colocated else first_s
        step_s = step_bound_s(
            sample,
            tpot_s=slo.tpot_s,
            e2e_s=slo.e2e_s,
            exposed_s=nothing if exposed_s is None else exposed_s,
            first_s=nothing if first_s is None else first_s,
        )
        if self.colocated:
            return self.colocated.in_time(load_rps, bound_s, step_s)
        if not self.decode:
            return np.zeros((len(load_rps), 1, len(sample.prompt)))
        # A prompt that hardly leaves time to wait is late by its own; decode is not to blame.
        slack_s = np.maximum(slo.ttft_s - (nothing if first_s is None else first_s), 0.0)
        return self.decode.in_time(load_rps, step_s, np.maximum(slack_s, 0.3 * slo.ttft_s))


def pair_in_time(
    slo: Slo,
    first: GroupFigures,
    later: GroupFigures,
    loads_rps: tuple[float, float],
    *,
    transfer: Transfer,
    port: Waits | None = None,
) -> FloatArray:
    """Probability that a route's requests meet all bounds: (1, levels, requests).

    Args:
        slo: The bounds.
        first: Computes prompts; a colocated group is both.
        later: Decodes.
        loads_rps: Of either.
        transfer: Between them.
        port: What others send through the narrowest port on the way; None for nothing.
    """
    begun = first.in_time(np.array([loads_rps[0]]), slo)
    if first.colocated:
        return begun
    sample = first.sample
    exposed_s = transfer.exposed_s(sample.prompt, first.times)
    both: FloatArray = begun * later.in_time(
        np.array([loads_rps[1]]), slo, exposed_s=exposed_s, first_s=first.times.latency_s
    )
    if port:
        spare_s = sample.steps * (slo.tpot_s - later.step_s(loads_rps[1])) - exposed_s
        both *= 1 - np.where(sample.steps > 0, port.longer_than(spare_s), 0.0)
    return both
