"""`thunderserve rent`: which offers to take for a budget, and the plan on them.

JSON::

    {"model": "llama-30b", "workload": "azure-conv", "objective": "capacity", "target_ratio": 0.9,
     "budget_usd_per_hour": 14.0,        null with --rate-at-least
     "rate_at_least_rps": null,
     "offers": [{"id": "9000101", "gpu": "A40", "gpus": 2, "of_gpus": 4, "usd_per_hour": 0.72,
                 "location": "Utah, US", "reliability_ratio": 0.996}],
     "cost": {"usd_per_hour": 13.9, "gpu_usd_per_hour": 13.6, "traffic_usd_per_hour": 0.3},
     "objective_rps": 16.4,              requests per second, as the objective counts them
     "bound_rps": 16.5,                  no choice within the budget has more; null if not known
     "goodput_rps": 15.9,                of which are in time, as predicted
     "requests_per_usd": 4220.0,
     "shadow_price": {"dual_rps_per_usd": 1.21, "next_dollar_rps": 1.1},
     "front": [{"budget_usd_per_hour": 7.0, "usd_per_hour": 6.9, "gpu_usd_per_hour": 6.9,
                "traffic_usd_per_hour": 0.0, "served_rps": 8.3, "goodput_rps": 7.9,
                "bound_rps": 8.4, "dollar_rps": 1.25, "gpus": 20}],
     "plan": {...}}                      a plan file

A shadow price is in requests per second for one dollar more per hour: the dual is that of the
linear program, where hosts are divisible; the next dollar is what it really buys. Both and the
front are left out (null, empty) with --rate-at-least.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path  # noqa: TC003 - typer reads it at run time
from typing import Annotated

import typer

from thunderserve.cli.planning.options import (
    Output,
    ProblemOptions,
    Seed,
    TimeBudget,
    with_options,
)
from thunderserve.console.output import OutputFormat, write
from thunderserve.control.planner.problem import Objective

__all__ = ["RentOptions", "command"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RentOptions(ProblemOptions):
    """What a plan is for; the cluster is what is rented."""

    cluster: Annotated[str, typer.Option(hidden=True)] = ""
    model: Annotated[str, typer.Option(help="A preset's name, or a folder.")] = "llama-30b"
    workload: Annotated[
        str, typer.Option(help="A preset's name, or a trace's file; empty for mean lengths.")
    ] = "azure-conv"
    objective: Annotated[
        Objective, typer.Option(help="The highest rate on target, or goodput at the rate.")
    ] = Objective.CAPACITY
    profile: Annotated[str, typer.Option(help="GPU figures.")] = "tensor_dense"


@with_options
def command(
    given: RentOptions,
    *,
    budget: Annotated[
        float | None, typer.Option(help="Dollars per hour, for GPUs and for KV traffic.")
    ] = None,
    rate_at_least: Annotated[
        float | None, typer.Option(help="Instead: the least rent for so many requests/s on target.")
    ] = None,
    offers: Annotated[
        Path | None,
        typer.Option(help="What `vastai search offers --raw` prints; a made-up sample by default."),
    ] = None,
    points: Annotated[int, typer.Option(min=0, help="Budgets of the Pareto front.")] = 6,
    figure: Annotated[Path | None, typer.Option(help="A PNG file for the front.")] = None,
    seed: Seed = 0,
    time_budget: TimeBudget = None,
    output: Output = OutputFormat.TABLE,
) -> None:
    """Choose what to rent for a budget, KV traffic included, and plan on it."""
    from thunderserve.cli.planning.rent_report import (  # noqa: PLC0415 - `--help` is quick
        Wish,
        draw_front,
        outcome_table,
        outcome_to_mapping,
        run,
    )

    outcome = run(given, Wish(budget, rate_at_least, points, figure), offers, seed, time_budget)
    if figure is not None:
        draw_front(outcome, figure)
    write(outcome_to_mapping(outcome), outcome_table(outcome), output)
