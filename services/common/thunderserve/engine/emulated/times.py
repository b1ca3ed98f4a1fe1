"""How long the emulated engine takes, and how much it holds."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from thunderserve.core.cost import Work

if TYPE_CHECKING:
    from collections.abc import Sequence

    from thunderserve.core.cost import CostModel, Replica

__all__ = ["CostTimes", "EmulatedTimes", "PlainTimes"]

UNLIMITED_TOKENS = 2**62


class EmulatedTimes(Protocol):
    """Seconds of an engine's passes; a pass goes through the stages of a pipeline."""

    @property
    def start_s(self) -> float:
        """Of the engine's start."""

    @property
    def flip_s(self) -> float:
        """Of a change of phase."""

    @property
    def stages(self) -> int:
        """Pipeline stages."""

    @property
    def capacity_tokens(self) -> int:
        """Tokens whose KV cache fits."""

    def prefill_s(self, prompts: Work) -> tuple[tuple[float, float], ...]:
        """(time, time to hand over to the next) of one pass over prompts, at every stage."""

    def round_s(self, prompts: Sequence[Work], batch: int, context_tokens: float) -> float:
        """Time of a round: a pass for each of `prompts`, and a token for each of `batch`.

        Args:
            prompts: At most one pass for each stage.
            batch: Requests that decode.
            context_tokens: Mean of what each of them attends to.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class PlainTimes:
    """The same time for every prompt token, and for every step of a batch."""

    prefill_s_per_token: float
    decode_s_per_step: float
    start_s: float = 0.0
    flip_s: float = 0.0
    capacity_tokens: int = UNLIMITED_TOKENS
    stages: int = 1

    def prefill_s(self, prompts: Work) -> tuple[tuple[float, float], ...]:
        """See `EmulatedTimes.prefill_s`."""
        return ((self.prefill_s_per_token * prompts.tokens, 0.0),)

    def round_s(self, prompts: Sequence[Work], batch: int, context_tokens: float) -> float:
        """See `EmulatedTimes.round_s`."""
        del context_tokens
        computing_s = self.prefill_s_per_token * math.fsum(each.tokens for each in prompts)
        return computing_s + (self.decode_s_per_step if batch else 0.0)


class CostTimes:
    """What the cost model says a group of named GPUs takes.

    Args:
        cost: The model that it holds.
        replica: Its stages.
        chunk_tokens: Prompt tokens of a pass: their activations take memory from the cache.
    """

    def __init__(
        self,
        cost: CostModel,
        replica: Replica,
        *,
        chunk_tokens: int,
        start_s: float = 0.0,
        flip_s: float = 0.0,
    ) -> None:
        self._start_s, self._flip_s = start_s, flip_s
        self._rates = [cost.stage_rates(stage) for stage in replica]
        self._capacity_tokens = max(0, int(cost.kv_capacity_tokens(replica, chunk_tokens)))

    @property
    def start_s(self) -> float:
        """See `EmulatedTimes.start_s`."""
        return self._start_s

    @property
    def flip_s(self) -> float:
        """See `EmulatedTimes.flip_s`."""
        return self._flip_s

    @property
    def stages(self) -> int:
        """See `EmulatedTimes.stages`."""
        return len(self._rates)

    @property
    def capacity_tokens(self) -> int:
        """See `EmulatedTimes.capacity_tokens`."""
        return self._capacity_tokens

    def prefill_s(self, prompts: Work) -> tuple[tuple[float, float], ...]:
        """See `EmulatedTimes.prefill_s`."""
        return tuple(
            (rates.time_s(prompts), rates.hop_s + rates.hop_token_s * prompts.tokens)
            for rates in self._rates
        )

    def round_s(self, prompts: Sequence[Work], batch: int, context_tokens: float) -> float:
        """See `EmulatedTimes.round_s`.

        The batch is cut into as many micro-batches as there are stages, and one of them rides along
        in each pass. Every stage computes every pass and every pass visits all stages: whichever
        takes longer sets the pace.
        """
        passes = [self.prefill_s(work) for work in self._passes(prompts, batch, context_tokens)]
        busiest = max(math.fsum(time for time, _ in stage) for stage in zip(*passes, strict=True))
        slowest = max(math.fsum(time + hop for time, hop in visits) for visits in passes)
        return max(busiest, slowest)

    def _passes(self, prompts: Sequence[Work], batch: int, context_tokens: float) -> list[Work]:
        passes = list(prompts)
        if batch:
            parts = min(batch, self.stages)
            part = Work.of_decode(batch / parts, context_tokens)
            passes += [Work(0, 0)] * (parts - len(passes))
            passes[:parts] = [work + part for work in passes[:parts]]
        return passes
