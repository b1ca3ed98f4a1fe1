"""Fit a workload to a recorded trace, and show how well the fit stands for it.

    python benchmarks/fit_workloads.py TRACE.csv [-o json]

prints the numbers that `thunderserve.core.azure` holds of Azure's traces: levels of rate, and 256
pairs of prompt and answer lengths. A trace needs no fit by hand: `--workload TRACE.csv` makes one.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from thunderserve.core.arrival_fit import WINDOWS_S
from thunderserve.core.burstiness import expected_burstiness, measure_burstiness
from thunderserve.core.trace import sample_trace
from thunderserve.core.trace_file import read_trace_text
from thunderserve.core.trace_workload import workload_of

if TYPE_CHECKING:
    from thunderserve.core.burstiness import Burstiness
    from thunderserve.core.trace import Trace
    from thunderserve.core.workload import Workload

_SAMPLED = 60_000
_PERCENTS = (50, 90, 99)


def main() -> None:
    """Read, fit, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=_Raw)
    parser.add_argument("trace", type=Path)
    parser.add_argument("-o", "--output", choices=("text", "json"), default="text")
    given = parser.parse_args()
    trace = read_trace_text(given.trace.name, given.trace.read_text(encoding="utf-8"))
    began_s = time.process_time()
    workload = workload_of(trace)
    cpu_s = time.process_time() - began_s
    figures = {"requests": len(trace.requests), "fit_cpu_s": cpu_s, **_figures(trace, workload)}
    if given.output == "json":
        print(json.dumps(figures))
        return
    print(_constants(workload))
    for name, value in figures.items():
        print(f"{name:<34} {value:12.4g}")


class _Raw(argparse.RawDescriptionHelpFormatter):
    """Keeps the description's lines."""


def _figures(trace: Trace, workload: Workload) -> dict[str, float]:
    """The trace beside what the fit promises and beside a trace drawn from it."""
    sampled = sample_trace(workload, requests=_SAMPLED)
    rows = {
        "trace": measure_burstiness(_arrivals(trace), WINDOWS_S),
        "fit": expected_burstiness(workload.arrivals, workload.rate_rps, WINDOWS_S),
        "sampled": measure_burstiness(_arrivals(sampled), WINDOWS_S),
    }
    figures = {"rate_rps": trace.rate_rps, "levels": float(len(workload.arrivals.levels))}
    for source, burstiness in rows.items():
        figures |= {f"{name}_{source}": value for name, value in _bursts(burstiness).items()}
    for source, each in (("trace", trace), ("sampled", sampled)):
        figures |= {f"{name}_{source}": value for name, value in _lengths(each).items()}
    return dict(sorted(figures.items()))


def _arrivals(trace: Trace) -> list[float]:
    return [request.arrival_s for request in trace.requests]


def _bursts(burstiness: Burstiness) -> dict[str, float]:
    figures = {"interval_cv": burstiness.interval_cv}
    for name in ("dispersion", "silence_ratio", "skewness"):
        values = zip(WINDOWS_S, getattr(burstiness, name), strict=True)
        figures |= {f"{name}_{window_s:.0f}s": value for window_s, value in values}
    return figures


def _lengths(trace: Trace) -> dict[str, float]:
    columns = {
        "prompt": [request.prompt_tokens for request in trace.requests],
        "output": [request.output_tokens for request in trace.requests],
    }
    figures = {"lengths_rank_correlation": _rank_correlation(*columns.values())}
    for name, values in columns.items():
        cuts = statistics.quantiles(values, n=100)
        figures[f"{name}_mean"] = statistics.fmean(values)
        figures |= {f"{name}_p{percent}": cuts[percent - 1] for percent in _PERCENTS}
    return figures


def _rank_correlation(left: list[int], right: list[int]) -> float:
    """Spearman's; equal values share their mean rank."""
    return statistics.correlation(_ranks(left), _ranks(right))


def _ranks(values: list[int]) -> list[float]:
    below, ranks = 0, {}
    for value, count in sorted(Counter(values).items()):
        ranks[value] = below + (count + 1) / 2
        below += count
    return [ranks[value] for value in values]


def _constants(workload: Workload) -> str:
    levels = "\n".join(
        f"    ({level.rate_factor:.4f}, {level.time_ratio:.4f}, {level.dwell_s:.2f}),"
        for level in workload.arrivals.levels
    )
    pairs = [f"{prompt:.0f}:{output:.0f}" for prompt, output in workload.requests]
    lines = [" ".join(pairs[i : i + 10]) for i in range(0, len(pairs), 10)]
    return f"levels:\n{levels}\npairs:\n" + "\n".join(lines)


if __name__ == "__main__":
    main()
