"""`thunderserve plan`: groups, phases and routes for a cluster, a model and a workload."""

from __future__ import annotations

from thunderserve.cli.planning.options import (
    Output,
    ProblemOptions,
    Seed,
    TimeBudget,
    with_options,
)
from thunderserve.console.output import OutputFormat, write

__all__ = ["command"]


@with_options
def command(
    given: ProblemOptions,
    *,
    seed: Seed = 0,
    time_budget: TimeBudget = 10.0,
    output: Output = OutputFormat.TABLE,
) -> None:
    """Search for groups, phases and routes; no GPU and no fleet is needed."""
    import time  # noqa: PLC0415 - `--help` must not wait for the solver

    from thunderserve.cli.planning.inputs import read_problem  # noqa: PLC0415 - as above
    from thunderserve.cli.progress import working  # noqa: PLC0415 - as above
    from thunderserve.console.views import plan_report  # noqa: PLC0415 - as above
    from thunderserve.control.planner.solve import solve  # noqa: PLC0415 - as above
    from thunderserve.core.plan_file import plan_to_mapping  # noqa: PLC0415 - as above

    problem = read_problem(given)
    with working("searching"):
        plan = solve(problem, seed=seed, time_budget_s=time_budget, clock=time.monotonic)
    write(plan_to_mapping(plan), plan_report(plan), output)
