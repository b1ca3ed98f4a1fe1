"""Does an emulated fleet take the time that the simulator says? Both serve the same trace.

Two implementations of one serving policy, over one cost model: the simulator's event queue, and the
emulated engines behind the real services, router to client. What differs is what the services add,
and mistakes.

    .venv/bin/python benchmarks/emulated.py [--duration 120] [--speed 1] [--kvlink real]
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import uvloop

from thunderserve.cli.emulated.fleet import EmulatedFleet
from thunderserve.cli.emulated.options import EmulatedOptions, KvlinkKind
from thunderserve.cli.emulated.planned import problem_and_plan
from thunderserve.cli.load.ask import GrpcAsker
from thunderserve.cli.load.expected import VOCABULARY, expected_tokens
from thunderserve.cli.load.history import History
from thunderserve.cli.load.invariants import violations
from thunderserve.cli.load.player import play
from thunderserve.cli.load.summary import summarise
from thunderserve.control.planner.simulator import simulate
from thunderserve.core.trace import Trace, sample_trace

if TYPE_CHECKING:
    from thunderserve.control.planner.problem import Problem
    from thunderserve.core.plan import Plan

TIMEOUT_S = 600.0


def main() -> None:
    """Print both and the ratio, quantile by quantile."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--plan", type=Path)
    parser.add_argument("--rate", type=float)
    parser.add_argument("--duration", type=float, default=120.0)
    parser.add_argument("--speed", type=float, default=1.0)
    parser.add_argument("--kvlink", choices=list(KvlinkKind), default=KvlinkKind.MODELLED)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    options = EmulatedOptions(
        plan=given.plan, rate_rps=given.rate, speed=given.speed, kvlink=KvlinkKind(given.kvlink)
    )
    problem, plan = problem_and_plan(options)
    trace = first(sample_trace(problem.workload, requests=100_000, seed=given.seed), given.duration)
    began_s, cpu_s = time.monotonic(), cpu_seconds()
    history = uvloop.run(serve(options, problem, plan, trace))
    share = (cpu_seconds() - cpu_s) / (time.monotonic() - began_s)
    broken = violations(history, expected_tokens)
    seen, told = summarise(history, problem.slo, broken), simulate(plan, problem, trace)
    print(
        f"{seen.requests} requests at {trace.rate_rps:.2f}/s, {seen.failed} failed, "
        f"{seen.retried} retried, {len(broken)} violations, {share:.2f} cores with the load player"
    )
    print(f"{'seconds':<12}{'emulated':>10}{'simulated':>10}{'ratio':>8}")
    for name in ("ttft", "tpot", "e2e"):
        for quantile in ("mean", "p50", "p90", "p99"):
            one, other = (getattr(getattr(each, name), quantile) for each in (seen, told))
            print(f"{name + ' ' + quantile:<12}{one:>10.4f}{other:>10.4f}{one / other:>8.3f}")
    print(f"{'attainment':<12}{seen.attainment.slo_ratio:>10.4f}{told.slo_attainment_ratio:>10.4f}")


def first(trace: Trace, duration_s: float) -> Trace:
    """Its first so many seconds."""
    until_s = trace.requests[0].arrival_s + duration_s
    return replace(trace, requests=tuple(r for r in trace.requests if r.arrival_s <= until_s))


def cpu_seconds() -> float:
    """Of this process so far."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


async def serve(options: EmulatedOptions, problem: Problem, plan: Plan, trace: Trace) -> History:
    """What an emulated fleet makes of a trace."""
    history = History(lambda: time.monotonic() * options.speed)
    with tempfile.TemporaryDirectory(prefix="thunderserve-") as run:
        async with EmulatedFleet(options, problem, plan, Path(run)) as fleet:
            await fleet.start()
            async with GrpcAsker(fleet.layout.router.address, TIMEOUT_S) as asker:
                await play(trace, asker, history, speed=options.speed, vocabulary=VOCABULARY)
    return history


if __name__ == "__main__":
    main()
