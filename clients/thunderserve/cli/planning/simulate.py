"""`thunderserve simulate`: what becomes of a trace under a plan."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import TYPE_CHECKING, Annotated, Any

import typer

from thunderserve.cli.planning.options import (
    ArrivalKind,
    Output,
    PlanFile,
    PlannedOptions,
    Seed,
    TraceOptions,
    with_options,
)
from thunderserve.console.output import OutputFormat, make_table, say, write

if TYPE_CHECKING:
    from rich.console import RenderableType

    from thunderserve.control.planner.problem import Problem
    from thunderserve.control.planner.simulator import SimulationReport
    from thunderserve.core.plan import Plan

__all__ = ["command"]

_BROKEN_PLAN = 2


@with_options
def command(
    given: PlannedOptions,
    drawn: TraceOptions,
    *,
    plan: PlanFile,
    shortest_queue: Annotated[
        bool, typer.Option("--shortest-queue", help="Route by queue, not by the plan's weights.")
    ] = False,
    prefill_first: Annotated[
        bool,
        typer.Option("--prefill-first", help="Colocated groups compute whole prompts first."),
    ] = False,
    seed: Seed = 0,
    output: Output = OutputFormat.TABLE,
) -> None:
    """Serve a trace with a plan, request by request; no GPU and no fleet is needed."""
    from thunderserve.cli.planning.files import read_plan  # noqa: PLC0415 - `--help` is quick
    from thunderserve.cli.planning.inputs import (  # noqa: PLC0415 - as above
        read_planned_problem,
        read_trace,
    )
    from thunderserve.cli.progress import working  # noqa: PLC0415 - as above
    from thunderserve.control.planner.simulator import (  # noqa: PLC0415 - as above
        ColocatedBatching,
        Dispatch,
        ServingPolicy,
        simulate,
    )

    served = read_plan(plan)
    # The problem's own workload is not simulated, so nothing needs to be fitted to a trace for it.
    problem = read_planned_problem(replace(given, arrivals=ArrivalKind.POISSON), served)
    trace = read_trace(given, drawn, seed=seed)
    _refuse_broken(served, problem)
    policy = ServingPolicy(
        dispatch=Dispatch.SHORTEST_QUEUE if shortest_queue else Dispatch.WEIGHTED,
        colocated=ColocatedBatching.PREFILL_FIRST if prefill_first else ColocatedBatching.CHUNKED,
    )
    with working(f"simulating {len(trace.requests)} requests"):
        report = simulate(served, problem, trace, policy=policy)
    write(_mapping(report, trace.rate_rps), _table(report, trace.rate_rps), output)


def _refuse_broken(plan: Plan, problem: Problem) -> None:
    """One line for everything that keeps the plan from being served.

    Raises:
        Exit: There was such a line.
    """
    from thunderserve.control.planner.validate import validate  # noqa: PLC0415 - as above

    violations = validate(plan, problem)
    for violation in violations:
        say(f"thunderserve: {violation.reason} ({violation.rule})")
    if violations:
        raise typer.Exit(_BROKEN_PLAN)


def _mapping(report: SimulationReport, rate_rps: float) -> dict[str, Any]:
    figures = {field.name: getattr(report, field.name) for field in fields(report)}
    del figures["outcomes"]  # one row per request
    return {"rate_rps": rate_rps, **figures}


def _table(report: SimulationReport, rate_rps: float) -> RenderableType:
    from rich.console import Group as Lines  # noqa: PLC0415 - as above
    from rich.text import Text  # noqa: PLC0415 - as above

    figures = (
        ("requests", report.requests),
        ("finished", report.finished),
        ("duration_s", f"{report.duration_s:.1f}"),
        ("rate_rps", f"{rate_rps:.3f}"),
        ("goodput_rps", f"{report.goodput_rps:.3f}"),
        ("throughput_tokens_per_s", f"{report.throughput_tokens_per_s:.1f}"),
        ("slo_attainment_ratio", f"{report.slo_attainment_ratio:.4f}"),
    )
    bounds = (
        ("TTFT", report.ttft, report.ttft_attainment_ratio),
        ("TPOT", report.tpot, report.tpot_attainment_ratio),
        ("E2E", report.e2e, report.e2e_attainment_ratio),
    )
    times = (
        (name, *(f"{value:.4g}" for value in (q.mean, q.p50, q.p90, q.p99)), f"{met:.4f}")
        for name, q, met in bounds
    )
    groups = (
        (g.id, g.phase, g.requests, f"{g.utilisation_ratio:.3f}", f"{g.kv_peak_ratio:.3f}")
        for g in report.groups
    )
    links = (
        (each.source, each.target, f"{each.bytes / 1e9:.2f}", f"{each.utilisation_ratio:.3f}")
        for each in report.links
    )
    return Lines(
        make_table(("FIGURE", "VALUE>"), figures),
        Text(),
        make_table(("SECONDS", "MEAN>", "P50>", "P90>", "P99>", "IN BOUND>"), times),
        Text(),
        make_table(("GROUP", "PHASE", "REQUESTS>", "BUSY>", "KV PEAK>"), groups),
        Text(),
        make_table(("FROM", "TO", "KV GB>", "BUSY>"), links),
    )
