"""What one group's passes take, by the cost model, each asked for once."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from thunderserve.control.planner.simulator.steps import Lines, lines_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from thunderserve.core.cost import CostModel, Replica, Work

__all__ = ["GroupTimings"]


class GroupTimings:
    """Times and memory of one replica."""

    def __init__(self, cost: CostModel, replica: Replica) -> None:
        self._cost = cost
        self._replica = replica
        self._rates = [cost.stage_rates(stage) for stage in replica]
        self._lines: dict[int, Lines] = {}

    @property
    def stages(self) -> int:
        """Pipeline stages."""
        return len(self._replica)

    def capacity_tokens(self, chunk_tokens: int = 0) -> int:
        """Tokens whose KV cache fits beside the activations of such a chunk; 0 when none do."""
        return max(0, int(self._cost.kv_capacity_tokens(self._replica, chunk_tokens)))

    def decode_lines(self, batch: int) -> Lines:
        """Time of a decode step of that many requests, by the context that it finds."""
        if batch not in self._lines:
            self._lines[batch] = lines_of(
                lambda context: self._cost.decode_step_s(self._replica, batch, context),
                self.capacity_tokens(),
            )
        return self._lines[batch]

    def stages_s(self, work: Work) -> list[tuple[float, float]]:
        """(time, time to hand over to the next) of one pass at every stage."""
        return [
            (rates.time_s(work), rates.hop_s + rates.hop_token_s * work.tokens)
            for rates in self._rates
        ]

    def round_s(self, works: Sequence[Work]) -> float:
        """Time until every one of these passes went through all stages, again and again.

        Every stage does all of them and every one visits all stages, so the longer of the two
        decides, as in a decode step that is cut into micro-batches.
        """
        passes = [self.stages_s(work) for work in works]
        busiest = max(math.fsum(time for time, _ in stage) for stage in zip(*passes, strict=True))
        slowest = max(math.fsum(time + hop for time, hop in visits) for visits in passes)
        return max(busiest, slowest)
