"""What a simulation saw: figures, and what every single request had."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from thunderserve.core.plan import Phase

if TYPE_CHECKING:
    from thunderserve.core.slo import Slo

__all__ = [
    "Attainment",
    "GroupLoad",
    "LinkLoad",
    "Outcomes",
    "Quantiles",
    "SimulationReport",
]

_Seconds = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Quantiles:
    """Of requests that finished; zeros when none did."""

    mean: float
    p50: float
    p90: float
    p99: float

    @classmethod
    def of(cls, values: _Seconds) -> Quantiles:
        """The figures of a sample."""
        if not len(values):
            return cls(0.0, 0.0, 0.0, 0.0)
        p50, p90, p99 = np.percentile(values, (50, 90, 99))
        return cls(float(values.mean()), float(p50), float(p90), float(p99))


@dataclass(frozen=True, slots=True)
class Attainment:
    """Share of all requests that met each bound, and every one."""

    slo_ratio: float
    ttft_ratio: float
    tpot_ratio: float
    e2e_ratio: float


@dataclass(frozen=True, slots=True, eq=False)
class Outcomes:
    """Seconds of every request, in the trace's order; infinity for what never came.

    Attributes:
        tpot_s: (end to end - first token) / (answer tokens - 1), so what the KV transfer takes
            after the first token counts; 0 for answers of one token.
    """

    ttft_s: _Seconds
    tpot_s: _Seconds
    e2e_s: _Seconds

    @property
    def finished(self) -> npt.NDArray[np.bool_]:
        """Which requests were served to the end."""
        return np.isfinite(self.e2e_s)

    def attainment(self, slo: Slo) -> Attainment:
        """Judge by other bounds without simulating again; what never finished missed them all."""
        done = self.finished
        ttft = done & (self.ttft_s <= slo.ttft_s)
        tpot = done & (self.tpot_s <= slo.tpot_s)
        e2e = done if slo.e2e_s is None else done & (self.e2e_s <= slo.e2e_s)
        return Attainment(*(float(met.mean()) for met in (ttft & tpot & e2e, ttft, tpot, e2e)))

    @classmethod
    def of(
        cls, arrival_s: _Seconds, first_s: _Seconds, last_s: _Seconds, output: _Seconds
    ) -> Outcomes:
        """From moments, some of which may be infinity."""
        ttft_s, e2e_s = first_s - arrival_s, last_s - arrival_s
        # Infinity minus infinity is what a request without a first token would give.
        decode_s = np.where(
            np.isfinite(e2e_s), last_s - np.where(np.isfinite(e2e_s), first_s, 0), np.inf
        )
        return cls(ttft_s, decode_s / np.maximum(1, output - 1), e2e_s)


@dataclass(frozen=True, slots=True)
class GroupLoad:
    """A group's share of the work.

    Attributes:
        utilisation_ratio: Of the time, that it computed; of a prefill pipeline, its slowest stage.
        kv_peak_ratio: Of its KV memory, the most that was set aside at once.
    """

    id: str
    phase: Phase
    utilisation_ratio: float
    requests: int
    kv_peak_ratio: float


@dataclass(frozen=True, slots=True)
class LinkLoad:
    """KV bytes from one node to another, or within one.

    Attributes:
        utilisation_ratio: Of `duration_s`, what these bytes alone keep the narrowest part busy;
            caches of answers of one token may still be on their way after it.
    """

    source: str
    target: str
    bytes: float
    utilisation_ratio: float


@dataclass(frozen=True, slots=True)
class SimulationReport:
    """What became of a trace.

    Attributes:
        finished: Requests served to the end; a request that no group could hold is refused.
        duration_s: From the first arrival to the last, or to the last token when that is later.
        goodput_rps: Requests that met every bound, per second of arrivals.
        throughput_tokens_per_s: Answer tokens over `duration_s`.
        outcomes: Of every request, to be judged by other bounds.
    """

    requests: int
    finished: int
    duration_s: float
    ttft: Quantiles
    tpot: Quantiles
    e2e: Quantiles
    slo_attainment_ratio: float
    ttft_attainment_ratio: float
    tpot_attainment_ratio: float
    e2e_attainment_ratio: float
    goodput_rps: float
    throughput_tokens_per_s: float
    groups: tuple[GroupLoad, ...]
    links: tuple[LinkLoad, ...]
    outcomes: Outcomes = field(repr=False, compare=False)
