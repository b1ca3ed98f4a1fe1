"""A workload as JSON values, for what is kept in the store."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from thunderserve.core.workload import Arrivals, Level, Workload

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["workload_from_record", "workload_to_record"]


def workload_to_record(workload: Workload) -> dict[str, Any]:
    """A workload, whole; a level that never ends has no dwell."""
    return {
        "name": workload.name,
        "rate_rps": workload.rate_rps,
        "requests": [list(request) for request in workload.requests],
        "levels": [
            [level.rate_factor, level.time_ratio, _finite(level.dwell_s)]
            for level in workload.arrivals.levels
        ],
    }


def workload_from_record(record: Mapping[str, Any]) -> Workload:
    """Raises InvalidArgumentError for anything that `Workload` refuses."""
    return Workload(
        record["name"],
        record["rate_rps"],
        tuple((float(prompt), float(output)) for prompt, output in record["requests"]),
        Arrivals(
            tuple(
                Level(factor, share, math.inf if dwell_s is None else dwell_s)
                for factor, share, dwell_s in record["levels"]
            )
        ),
    )


def _finite(seconds: float) -> float | None:
    return seconds if math.isfinite(seconds) else None  # JSON knows no infinity
