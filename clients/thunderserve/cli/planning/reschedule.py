"""`thunderserve reschedule`: phases and routes for what has changed; no weights are loaded."""

from __future__ import annotations

from typing import Annotated

import typer

from thunderserve.cli.planning.options import Output, PlanFile, PlannedOptions, Seed, with_options
from thunderserve.console.output import OutputFormat, write

__all__ = ["command"]

_Lost = Annotated[list[str] | None, typer.Option(help="A node that is gone; repeatable.")]


@with_options
def command(
    given: PlannedOptions,
    *,
    plan: PlanFile,
    lost: _Lost = None,
    replan_budget: Annotated[
        float, typer.Option(min=0, help="Seconds to search for a full re-plan; 0 leaves it out.")
    ] = 5.0,
    load_gb_per_s: Annotated[
        float, typer.Option(min=0.001, help="At which a host loads weights, for a full re-plan.")
    ] = 2.0,
    seed: Seed = 0,
    output: Output = OutputFormat.TABLE,
) -> None:
    """Choose phases and routes anew; groups, their GPUs and their layers stay."""
    from thunderserve.cli.planning.reschedule_report import (  # noqa: PLC0415 - `--help` is quick
        Change,
        Replanning,
        outcome_table,
        outcome_to_mapping,
        run,
    )

    full = Replanning(replan_budget, load_gb_per_s * 1e9, seed)
    outcome = run(given, plan, Change(tuple(lost or ()), given.links), full)
    write(outcome_to_mapping(outcome), outcome_table(outcome), output)
