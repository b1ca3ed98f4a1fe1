"""A cost model whose times are what theory speaks of."""

# ruff: noqa: ARG002 - the arguments are the cost model's

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from thunderserve.core.cost import CostModel, Replica, StageHardware, StageRates

if TYPE_CHECKING:
    from thunderserve.core.hardware import Link


@dataclass(frozen=True, slots=True)
class PlainCost(CostModel):
    """Prompts take time per token, decode steps are equally long, memory has no end.

    Attributes:
        token_s: Of a prompt, in every stage.
        step_s: Of a decode step, whatever the batch.
        byte_s: On every link, without its latency.
    """

    token_s: float = 0.01
    step_s: float = 0.01
    byte_s: float = 0.0

    def stage_rates(self, stage: StageHardware) -> StageRates:
        return StageRates(self.token_s, 0, 0, 0, 0, 0, 0, 0)

    def decode_step_s(self, replica: Replica, batch: float, context_tokens: float) -> float:
        return self.step_s

    def kv_capacity_tokens(self, replica: Replica, chunk_tokens: float = 0.0) -> float:
        return 1e12

    def transfer_s(self, wire_bytes: float, link: Link) -> float:
        return wire_bytes * self.byte_s
