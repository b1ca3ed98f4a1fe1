"""What one group can do in each phase, and how that falls as its load rises."""

from __future__ import annotations

import math
from bisect import bisect_right
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

from thunderserve.core.plan import Phase

if TYPE_CHECKING:
    from collections.abc import Callable

    from thunderserve.core.cost import CostModel, Replica
    from thunderserve.core.slo import Slo
    from thunderserve.core.workload import Workload

__all__ = [
    "BREAKPOINTS",
    "DecodeFigures",
    "GroupFigures",
    "PrefillFigures",
    "Transfer",
    "decode_figures",
    "decode_ratio",
    "loss_lines",
    "prefill_figures",
]

HIGHEST_UTILISATION = 0.95
"""Of a prefill group: beyond it the queue has no useful length."""

BREAKPOINTS = (0.0, 0.3, 0.5, 0.7, 0.85, 1.0)
"""Shares of a group's capacity at which attainment is looked at."""

_BATCH_POINTS = 12
_NOISE = 1e-12


@dataclass(frozen=True, slots=True)
class PrefillFigures:
    """Prefill of one group.

    Attributes:
        latency_s: To the first token without a queue, for every prompt length of the workload.
        mean_s: Mean time that a prompt occupies the slowest stage.
        mean_square_s2: Mean of its square.
        capacity_rps: Requests per second, at most.
    """

    latency_s: tuple[float, ...]
    mean_s: float
    mean_square_s2: float

    @property
    def capacity_rps(self) -> float:
        """Requests per second, at most."""
        return HIGHEST_UTILISATION / self.mean_s

    def ttft_ratio(self, load_rps: float, bound_s: float) -> float:
        """Share of requests whose first token comes within `bound_s`."""
        late = sum(self._late(load_rps, bound_s - latency) for latency in self.latency_s)
        return 1 - late / len(self.latency_s)

    def _late(self, load_rps: float, slack_s: float) -> float:
        """Probability that a request waits longer than `slack_s`.

        The mean wait is Pollaczek and Khinchine's for one server; its tail is taken to be
        exponential, which is exact for exponential service only.
        """
        if slack_s < 0:
            return 1.0
        busy = load_rps * self.mean_s
        if busy <= 0:
            return 0.0
        if busy >= 1:
            return 1.0
        mean_wait_s = load_rps * self.mean_square_s2 / (2 * (1 - busy))
        return busy * math.exp(-slack_s * busy / mean_wait_s)


@dataclass(frozen=True, slots=True)
class DecodeFigures:
    """Decode of one group.

    Attributes:
        curve: Ascending (requests per second, seconds per token) at growing batches; the last is
            the batch that memory, or the bound on seconds per token, allows.
    """

    curve: tuple[tuple[float, float], ...]

    @property
    def capacity_rps(self) -> float:
        """Requests per second, at most; 0 when the model does not fit."""
        return self.curve[-1][0] if self.curve else 0.0

    def step_s(self, load_rps: float) -> float:
        """Seconds per token at that load."""
        if load_rps <= self.curve[0][0]:
            return self.curve[0][1]
        for (low, fast), (high, slow) in pairwise(self.curve):
            if load_rps <= high:
                return fast + (slow - fast) * (load_rps - low) / (high - low)
        return self.curve[-1][1]


@dataclass(frozen=True, slots=True)
class GroupFigures:
    """What a group can do in its phase; colocated groups do both."""

    phase: Phase
    prefill: PrefillFigures
    decode: DecodeFigures

    @property
    def capacity_rps(self) -> float:
        """Requests per second, at most; 0 when the model does not fit."""
        if not self.decode.curve:
            return 0.0
        if self.phase is Phase.PREFILL:
            return self.prefill.capacity_rps
        if self.phase is Phase.DECODE:
            return self.decode.capacity_rps
        return 1 / (1 / self.prefill.capacity_rps + 1 / self.decode.capacity_rps)

    @property
    def idle_s(self) -> float:
        """How slow it is when idle: mean time to the first token, time per later token."""
        first_s = sum(self.prefill.latency_s) / len(self.prefill.latency_s)
        later_s = self.decode.curve[0][1] if self.decode.curve else math.inf
        if self.phase is Phase.COLOCATED:
            return first_s + later_s
        return first_s if self.phase is Phase.PREFILL else later_s

    def ttft_ratio(self, load_rps: float, bound_s: float) -> float:
        """Share of first tokens in time at that load."""
        return self.prefill.ttft_ratio(load_rps, bound_s)

    def step_s(self, load_rps: float) -> float:
        """Seconds per token at that load; prefills of a colocated group come between the steps."""
        if self.phase is Phase.COLOCATED:
            left = max(1e-3, 1 - load_rps * self.prefill.mean_s)
            return self.decode.step_s(load_rps / left) / left
        return self.decode.step_s(load_rps)


@dataclass(frozen=True, slots=True)
class Transfer:
    """Moving a KV cache between two groups: seconds per prompt token, and once."""

    s_per_token: float = 0.0
    latency_s: float = 0.0

    def seconds(self, tokens: float) -> float:
        """Time to move that many tokens' KV cache."""
        return self.latency_s + self.s_per_token * tokens


def prefill_figures(cost: CostModel, replica: Replica, workload: Workload) -> PrefillFigures:
    """What the replica prefills of this workload."""
    prompts = workload.prompt.values
    periods = [cost.prefill_period_s(replica, tokens) for tokens in prompts]
    return PrefillFigures(
        latency_s=tuple(cost.prefill_latency_s(replica, tokens) for tokens in prompts),
        mean_s=sum(periods) / len(periods),
        mean_square_s2=sum(period**2 for period in periods) / len(periods),
    )


def decode_figures(
    cost: CostModel, replica: Replica, workload: Workload, *, bound_s: float, max_batch: int
) -> DecodeFigures:
    """What the replica decodes of this workload at no more than `bound_s` per token.

    A group that exceeds the bound even alone is judged by its memory.
    """
    outputs = workload.output
    # The context that a decode step finds: long answers are seen more often than they are counted.
    answer = sum(tokens**2 for tokens in outputs.values) / (2 * sum(outputs.values))
    context = workload.prompt.mean + answer
    most = min(max_batch, cost.max_batch(replica, context))
    steps = max(1.0, outputs.mean - 1)
    curve: list[tuple[float, float]] = []
    for batch in _batches(most):
        step_s = cost.decode_step_s(replica, batch, context)
        rate = batch / (steps * step_s)
        if curve and (step_s > bound_s >= curve[0][1] or rate <= curve[-1][0]):
            break
        curve.append((rate, step_s))
    return DecodeFigures(tuple(curve))


def _batches(most: int) -> list[int]:
    """Batches from 1 to `most`, geometrically."""
    if most < 1:
        return []
    return sorted({round(most ** (i / (_BATCH_POINTS - 1))) for i in range(_BATCH_POINTS)})


def decode_ratio(
    step_s: float,
    transfer: Transfer,
    slo: Slo,
    workload: Workload,
    latency_s: tuple[float, ...] | None = None,
) -> float:
    """Share of requests whose later tokens come in time.

    Args:
        step_s: Seconds per token.
        transfer: What moves the KV cache; it counts into the time per output token.
        slo: The bounds.
        workload: The lengths.
        latency_s: To the first token for every prompt length; needed for an end-to-end bound.
    """
    prompts, outputs = workload.prompt.values, workload.output.values
    met = sum(_met(output, prompts, step_s, transfer, slo, latency_s) for output in outputs)
    return met / (len(prompts) * len(outputs))


def _met(  # noqa: PLR0917 - the terms of one formula
    output: float,
    prompts: tuple[float, ...],
    step_s: float,
    transfer: Transfer,
    slo: Slo,
    latency_s: tuple[float, ...] | None,
) -> int:
    """How many of the prompts meet the bounds with that answer.

    Both bounds are harder to meet the longer the prompt, so those that meet them come first.
    """
    steps = output - 1
    if steps <= 0:
        return len(prompts)

    def late(index: int) -> bool:
        decode_s = transfer.seconds(prompts[index]) + steps * step_s
        first_s = latency_s[index] if latency_s else 0.0
        beyond_end = slo.e2e_s is not None and first_s + decode_s > slo.e2e_s
        return decode_s > slo.tpot_s * steps or beyond_end

    return bisect_right(range(len(prompts)), 0, key=late)


def loss_lines(
    capacity_rps: float, ratio_at: Callable[[float], float]
) -> tuple[tuple[float, float], ...]:
    """How many requests per second miss their bounds as load rises, beyond those of an idle group.

    Args:
        capacity_rps: The highest load.
        ratio_at: Attainment at a load.

    Returns:
        (slope, offset) of lines; the loss at a load is the highest of 0 and slope * load - offset.
        They are convex: where attainment recovers, the steeper slope is kept, so the loss is never
        understated.
    """
    loads = [share * capacity_rps for share in BREAKPOINTS]
    idle = ratio_at(0.0)
    misses = [load * max(0.0, idle - ratio_at(load)) for load in loads]
    lines: list[tuple[float, float]] = []
    steepest, height = 0.0, 0.0
    for (low, high), (miss, more) in zip(pairwise(loads), pairwise(misses), strict=True):
        slope = (more - miss) / (high - low)
        if slope > steepest + _NOISE:
            lines.append((slope, slope * low - height))
            steepest = slope
        height += steepest * (high - low)
    return tuple(lines)
