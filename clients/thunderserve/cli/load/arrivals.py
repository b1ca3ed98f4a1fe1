"""The arrivals that a load plays."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from thunderserve.cli.planning.files import read_trace_file
from thunderserve.core.trace import sample_trace
from thunderserve.core.workload import WORKLOADS

if TYPE_CHECKING:
    from thunderserve.core.trace import Trace
    from thunderserve.core.workload import Workload

__all__ = ["arrivals_of", "named_arrivals"]


def named_arrivals(workload: str, rate_rps: float | None, duration_s: float, seed: int) -> Trace:
    """The arrivals of so many seconds.

    Args:
        workload: A preset's name, or a trace's file.
        rate_rps: Requests per second; None is the workload's own.
        duration_s: From the first arrival on.
        seed: Of a preset's lengths and arrivals.

    Raises:
        InvalidArgumentError: There are fewer than two.
    """
    if workload in WORKLOADS:
        chosen = WORKLOADS[workload]
        chosen = chosen if rate_rps is None else chosen.with_rate(rate_rps)
        return arrivals_of(chosen, duration_s, seed)
    trace = read_trace_file(workload, WORKLOADS)
    return _first(trace if rate_rps is None else trace.with_rate(rate_rps), duration_s)


def arrivals_of(workload: Workload, duration_s: float, seed: int) -> Trace:
    """The same of a workload."""
    requests = 2 + round(4 * workload.rate_rps * duration_s)
    return _first(sample_trace(workload, requests=requests, seed=seed), duration_s)


def _first(trace: Trace, duration_s: float) -> Trace:
    until_s = trace.requests[0].arrival_s + duration_s
    return replace(trace, requests=tuple(r for r in trace.requests if r.arrival_s <= until_s))
