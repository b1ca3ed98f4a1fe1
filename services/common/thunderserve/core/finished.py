"""Requests that have ended: what routers tell of them, and the monitor learns the workload from."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from thunderserve.core.request import GenerationReport
    from thunderserve.core.slo import Slo

__all__ = ["FinishedRequest", "Outcome"]


class Outcome(StrEnum):
    """How a request ended."""

    FINISHED = "finished"
    FAILED = "failed"
    CANCELLED = "cancelled"


@dataclass(frozen=True, slots=True)
class FinishedRequest:
    """One line of the workload window.

    Attributes:
        arrived_unix_s: By the router's clock; hosts' clocks may differ.
        outcome: One of `Outcome`; a later release may have others.
    """

    arrived_unix_s: float
    prompt_tokens: int
    output_tokens: int
    ttft_s: float
    tpot_s: float
    outcome: str

    @classmethod
    def of(cls, report: GenerationReport, arrived_unix_s: float, outcome: Outcome) -> Self:
        """The line for a request with this report."""
        return cls(
            arrived_unix_s=arrived_unix_s,
            prompt_tokens=report.usage.prompt_tokens,
            output_tokens=report.usage.completion_tokens,
            ttft_s=report.ttft_s,
            tpot_s=report.tpot_s,
            outcome=outcome.value,
        )

    @property
    def served(self) -> bool:
        """True when it was answered to its end, so that its lengths are the workload's."""
        return self.outcome == Outcome.FINISHED and min(self.prompt_tokens, self.output_tokens) > 0

    @property
    def e2e_s(self) -> float:
        """From its arrival to its last token."""
        return self.ttft_s + self.tpot_s * max(0, self.output_tokens - 1)

    def meets(self, slo: Slo) -> bool:
        """True when it was answered within every bound."""
        return (
            self.served
            and self.ttft_s <= slo.ttft_s
            and self.tpot_s <= slo.tpot_s
            and (slo.e2e_s is None or self.e2e_s <= slo.e2e_s)
        )
