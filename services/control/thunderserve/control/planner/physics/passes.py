"""What many prompts, or batches of many sizes, take on a group, as arrays."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from thunderserve.control.planner.physics.sample import FloatArray

if TYPE_CHECKING:
    from collections.abc import Sequence

    from thunderserve.core.cost import StageRates

__all__ = ["PromptTimes", "decode_steps_s", "pass_s", "prompt_times"]


@dataclass(frozen=True, slots=True, eq=False)
class PromptTimes:
    """Prompts computed chunk by chunk without a queue; one value for each prompt.

    Attributes:
        latency_s: From start to first token.
        busy_s: How long the busiest stage works: when the next prompt can follow.
        first_chunk_s: From start until the first chunk's KV cache can be sent.
        last_tokens: Size of the last chunk.
        passes: Chunks.
    """

    latency_s: FloatArray
    busy_s: FloatArray
    first_chunk_s: FloatArray
    last_tokens: FloatArray
    passes: FloatArray


def pass_s(
    rates: StageRates, tokens: FloatArray, pairs: FloatArray, cached: FloatArray
) -> FloatArray:
    """`StageRates.time_s` of many passes."""
    arithmetic = rates.token_s * tokens + rates.pair_s * pairs
    memory = rates.weights_s + rates.cached_token_s * cached
    passed: FloatArray = (
        np.maximum(arithmetic, memory) + rates.reduced_token_s * tokens + rates.reduce_s
    )
    return passed


def prompt_times(
    replica: Sequence[StageRates], prompts: FloatArray, chunk_tokens: float
) -> PromptTimes:
    """Prompts of these lengths, one at a time.

    Each chunk reads the weights and the cache of the chunks before it again. In a pipeline a chunk
    enters when the first stage is free, so a prompt's chunks overlap: a flow shop.

    Source: Sarathi-Serve (OSDI 2024), chunked prefills; SGLang's chunked pipeline parallelism.
    """
    free = [np.zeros_like(prompts) for _ in replica]
    busy = [np.zeros_like(prompts) for _ in replica]
    latency = np.zeros_like(prompts)
    first = np.zeros_like(prompts)
    passes = np.ceil(prompts / chunk_tokens)
    for index in range(int(passes.max())):
        past = index * chunk_tokens
        tokens = np.clip(prompts - past, 0.0, chunk_tokens)
        pairs = tokens * (past + tokens / 2)
        active = tokens > 0
        at = np.zeros_like(prompts)
        for stage, rates in enumerate(replica):
            taken = pass_s(rates, tokens, pairs, np.full_like(tokens, past))
            at = np.maximum(at, free[stage]) + taken
            free[stage] = at
            busy[stage] += np.where(active, taken, 0.0)
            at = at + rates.hop_s + rates.hop_token_s * tokens
        latency = np.where(active, at, latency)
        if index == 0:
            first = latency
    return PromptTimes(
        latency_s=latency,
        busy_s=np.maximum.reduce(busy),
        first_chunk_s=first,
        last_tokens=prompts - (passes - 1) * chunk_tokens,
        passes=passes,
    )


def decode_steps_s(
    replica: Sequence[StageRates], batch: FloatArray, context_tokens: float
) -> FloatArray:
    """`CostModel.decode_step_s` of many batches."""
    parts = np.clip(batch, 1.0, len(replica))
    part = batch / parts
    found = part * context_tokens
    times = [pass_s(rates, part, found, found) for rates in replica]
    hops = np.add.reduce([rates.hop_s + rates.hop_token_s * part for rates in replica])
    together = np.add.reduce(times) + hops
    longest: FloatArray = np.maximum(together, parts * np.maximum.reduce(times))
    return longest
