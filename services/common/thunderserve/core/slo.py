"""Service level objectives: what a request must meet to count."""

from __future__ import annotations

from dataclasses import dataclass

from thunderserve.core.hardware import check_positive

__all__ = ["Slo", "default_slo"]


@dataclass(frozen=True, slots=True)
class Slo:
    """Bounds that a request must meet, all of them.

    Attributes:
        ttft_s: First token - arrival.
        tpot_s: Per later token, KV transfer included.
        e2e_s: Last token - arrival; None sets no bound.
    """

    ttft_s: float
    tpot_s: float
    e2e_s: float | None = None

    def __post_init__(self) -> None:
        check_positive("SLO", ttft_s=self.ttft_s, tpot_s=self.tpot_s)
        if self.e2e_s is not None:
            check_positive("SLO", e2e_s=self.e2e_s)

    def scaled(self, scale: float) -> Slo:
        """Every bound times `scale`: below 1 is stricter."""
        check_positive("SLO", scale=scale)
        e2e_s = None if self.e2e_s is None else self.e2e_s * scale
        return Slo(self.ttft_s * scale, self.tpot_s * scale, e2e_s)


def default_slo(model: str) -> Slo:
    """Bounds for a model of that name when nobody gave any.

    For llama-30b those of ThunderServe's evaluation. For any other: an answer no slower than a
    person reads (150 ms per token are 300 words per minute), begun within the 2 s that MLPerf
    Inference allows Llama-2-70B.
    """
    return Slo(ttft_s=3.0 if model == "llama-30b" else 2.0, tpot_s=0.15)
