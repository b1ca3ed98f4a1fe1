"""Figures of a history: quantiles, attainment, goodput, errors."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from thunderserve.cli.load.history import Ending
from thunderserve.console.output import make_table
from thunderserve.control.planner.simulator import Attainment, Outcomes, Quantiles

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import RenderableType

    from thunderserve.cli.load.history import History, RequestRecord
    from thunderserve.cli.load.invariants import Violation
    from thunderserve.core.slo import Slo

__all__ = ["Summary", "summarise", "summary_table"]


@dataclass(frozen=True, slots=True)
class Summary:
    """What came of a run; seconds are the history's.

    Attributes:
        retried: Requests that more than one pair worked on.
        goodput_rps: Requests that met every bound, per second of arrivals.
        errors: How often each kind of error ended a request.
        violations: Promises that were broken; None where nobody looked.
    """

    requests: int
    finished: int
    failed: int
    refused: int
    retried: int
    duration_s: float
    ttft: Quantiles
    tpot: Quantiles
    e2e: Quantiles
    attainment: Attainment
    goodput_rps: float
    throughput_tokens_per_s: float
    errors: dict[str, int]
    violations: int | None = None


def outcomes_of(records: Sequence[RequestRecord]) -> Outcomes:
    """Moments as the simulator has them; what did not finish never came."""
    done = [record.ending is Ending.FINISHED for record in records]
    last_s = [r.ended_s if fine else np.inf for r, fine in zip(records, done, strict=True)]
    return Outcomes.of(
        np.array([record.submitted_s for record in records]),
        np.array([record.first_token_s for record in records]),
        np.array(last_s),
        np.array([record.output_tokens for record in records], dtype=np.float64),
    )


def summarise(history: History, slo: Slo, broken: Sequence[Violation] | None = None) -> Summary:
    """The figures of a history that is over; it has at least two requests."""
    records = history.requests
    endings = Counter(record.ending for record in records)
    outcomes = outcomes_of(records)
    done, met = outcomes.finished, outcomes.attainment(slo)
    arrived_s = records[-1].submitted_s - records[0].submitted_s
    duration_s = max(record.ended_s for record in records) - records[0].submitted_s
    later = done & (outcomes.tpot_s > 0)
    return Summary(
        requests=len(records),
        finished=endings[Ending.FINISHED],
        failed=endings[Ending.FAILED] + endings[Ending.GIVEN_UP],
        refused=endings[Ending.REFUSED],
        retried=sum(bool(record.report and record.report.retries) for record in records),
        duration_s=duration_s,
        ttft=Quantiles.of(outcomes.ttft_s[done]),
        tpot=Quantiles.of(outcomes.tpot_s[later]),
        e2e=Quantiles.of(outcomes.e2e_s[done]),
        attainment=met,
        goodput_rps=met.slo_ratio * (len(records) - 1) / arrived_s,
        throughput_tokens_per_s=sum(record.token_count for record in records) / duration_s,
        errors=dict(Counter(record.error.partition(":")[0] for record in records if record.error)),
        violations=None if broken is None else len(broken),
    )


def summary_table(summary: Summary) -> RenderableType:
    """The same for people."""
    from rich.console import Group as Lines  # noqa: PLC0415 - loaded when it is shown

    figures = (
        ("requests", summary.requests),
        ("finished", summary.finished),
        ("failed", summary.failed),
        ("refused", summary.refused),
        ("retried", summary.retried),
        ("duration_s", f"{summary.duration_s:.1f}"),
        ("goodput_rps", f"{summary.goodput_rps:.3f}"),
        ("throughput_tokens_per_s", f"{summary.throughput_tokens_per_s:.1f}"),
        ("slo_attainment_ratio", f"{summary.attainment.slo_ratio:.4f}"),
        ("violations", "not looked for" if summary.violations is None else summary.violations),
        *((f"{name} errors", count) for name, count in summary.errors.items()),
    )
    times = (
        (name, *(f"{value:.4g}" for value in (q.mean, q.p50, q.p90, q.p99)))
        for name, q in (("TTFT", summary.ttft), ("TPOT", summary.tpot), ("E2E", summary.e2e))
    )
    return Lines(
        make_table(("FIGURE", "VALUE>"), figures),
        "",
        make_table(("SECONDS", "MEAN>", "P50>", "P90>", "P99>"), times),
    )
