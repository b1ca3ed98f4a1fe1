"""How long it takes to simulate an hour of Azure's conversations on twelve groups.

    .venv/bin/python benchmarks/simulator.py [--trace FILE] [-o json]

By default 19,366 requests at 5.53 a second are drawn from the preset azure-conv, as many as the
trace of 2023 has; `--trace` reads a file instead. The plan is the one that ThunderServe's authors
published for conversations. The first requests are also served by the tests' twin of the
simulator, which takes every decode step by itself.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from thunderserve.control.planner.presets import cluster_preset
from thunderserve.control.planner.problem import Problem
from thunderserve.control.planner.simulator import ServingPolicy, highest_rate, simulate
from thunderserve.control.planner.strategies import plan_published
from thunderserve.core.model import model_preset
from thunderserve.core.slo import Slo
from thunderserve.core.trace import Trace, sample_trace
from thunderserve.core.trace_file import read_trace_text
from thunderserve.core.workload import workload_preset

sys.path.insert(0, str(Path(__file__).parent.parent / "tests" / "support"))

from slow_simulator import SlowSimulator

if TYPE_CHECKING:
    from collections.abc import Callable

    from thunderserve.control.planner.simulator import SimulationReport
    from thunderserve.core.plan import Plan

REQUESTS = 19_366
RATE_RPS = 5.53
SLOW_REQUESTS = 500
SEARCHED_REQUESTS = 3_000
SLO = Slo(3.0, 0.15)


def main() -> None:
    """Command-line entry."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-o", "--output", choices=["table", "json"], default="table")
    parser.add_argument("--trace", type=Path, help="CSV as Azure's or JSON lines as Mooncake's")
    arguments = parser.parse_args()
    figures = measure(_trace(arguments.trace))
    if arguments.output == "json":
        print(json.dumps(figures | {"machine": f"{platform.machine()}, one process"}))
    else:
        for name, value in figures.items():
            print(f"{name:40} {value:14.4f}")


def measure(trace: Trace) -> dict[str, float]:
    """All figures; CPU seconds of this process alone."""
    problem = Problem(
        cluster_preset("paper-cloud-32"),
        model_preset("llama-30b"),
        workload_preset("azure-conv"),
        SLO,
    )
    problem = replace(problem, engine=replace(problem.engine, max_nodes=2))
    plan = plan_published(problem, 0, lambda: 0.0)
    report, cpu_s = _timed(lambda: simulate(plan, problem, trace))
    few = Trace(trace.name, trace.requests[:SEARCHED_REQUESTS])
    search, search_s = _timed(
        lambda: highest_rate(plan, problem, few, target_ratio=problem.target_ratio)
    )
    return {
        "requests": report.requests,
        "groups": len(plan.groups),
        "cpu_s": cpu_s,
        "cpu_s_per_1000_requests": 1000 * cpu_s / report.requests,
        "simulated_s_per_cpu_s": report.duration_s / cpu_s,
        **_against_single_steps(plan, problem, trace),
        "slo_attainment_ratio": report.slo_attainment_ratio,
        "throughput_tokens_per_s": report.throughput_tokens_per_s,
        "highest_rate_rps": search.rate_rps,
        "highest_rate_runs": len(search.points),
        "highest_rate_cpu_s": search_s,
    }


def _against_single_steps(plan: Plan, problem: Problem, trace: Trace) -> dict[str, float]:
    """The first requests, slowly enough that all can be held, and how far the twins differ."""
    few = Trace(trace.name, trace.requests[:SLOW_REQUESTS]).with_rate(1.0)
    slow = SlowSimulator(plan, problem, ServingPolicy())
    _, slow_s = _timed(lambda: slow.serve(few))
    report, fast_s = _timed(lambda: simulate(plan, problem, few))
    return {"x_single_steps": slow_s / fast_s, "most_different_s": _difference_s(slow, report)}


def _difference_s(slow: SlowSimulator, report: SimulationReport) -> float:
    ends = np.array([asked.last_s - asked.request.arrival_s for asked in slow.asked])
    return float(np.abs(ends - report.outcomes.e2e_s).max())


def _trace(path: Path | None) -> Trace:
    if path is None:
        workload = workload_preset("azure-conv").with_rate(RATE_RPS)
        return sample_trace(workload, requests=REQUESTS)
    return read_trace_text(path.name, path.read_text())


def _timed(run: Callable[[], Any]) -> tuple[Any, float]:
    began_s = time.process_time()
    result = run()
    return result, time.process_time() - began_s


if __name__ == "__main__":
    main()
