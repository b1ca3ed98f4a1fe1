"""`thunderserve compare`: what each strategy makes of the same GPUs, by the same simulation.

JSON::

    {"cluster": "paper-cloud-32", "model": "llama-30b", "workload": "azure-conv",
     "requests": 1500, "slo": {"ttft_s": 3.0, "tpot_s": 0.15}, "target_ratio": 0.9,
     "usd_per_hour": 11.33,
     "strategies": [
       {"name": "hexgen",
        "goodput_rps": 6.1,             highest rate of which target_ratio are in time
        "goodput_99_rps": 4.0,          highest of which 99% are, perhaps with another plan
        "goodput_per_usd": 1950.0,      requests in time for a dollar, of the GPUs it uses
        "throughput_tokens_per_s": 1037.0, "usd_per_hour": 11.33, "planning_cpu_s": 2.6,
        "ours_ratio": 1.16,             our goodput, as a multiple of it; null when it has none
        "ours_per_usd_ratio": 1.16,     the same for a dollar
        "groups": {"COLOCATED": 8}, "refused": "", "source": "...", "departures": ["..."]}],
     "against": {"cluster": "paper-inhouse-8xa100", "usd_per_hour": 14.02, "strategies": [...]}}

With `--against`, the ratios of its strategies compare our plan on the first cluster with theirs on
the second. With `--figures`, every strategy also has `by_rate` and `by_slo_scale`: pairs of
(requests per second, share in time) and (scale of the bounds, share in time).
"""

from __future__ import annotations

from pathlib import Path  # noqa: TC003 - typer reads it at run time
from typing import Annotated

import typer

from thunderserve.cli.planning.options import Output, ProblemOptions, Seed, with_options
from thunderserve.console.output import OutputFormat, write

__all__ = ["command"]


@with_options
def command(
    given: ProblemOptions,
    *,
    strategies: Annotated[
        str, typer.Option(help="Names, separated by commas; all when left out.")
    ] = "",
    against: Annotated[str, typer.Option(help="Another cluster to compare with.")] = "",
    requests: Annotated[int, typer.Option(min=2, help="How many every simulation draws.")] = 1500,
    figures: Annotated[
        Path | None, typer.Option(help="A folder for PNG figures; more is simulated for them.")
    ] = None,
    seed: Seed = 0,
    output: Output = OutputFormat.TABLE,
) -> None:
    """Plan as this and other systems would, simulate all plans, and compare them."""
    from thunderserve.cli.planning.comparison import Comparison  # noqa: PLC0415 - `--help` is quick
    from thunderserve.cli.planning.comparison_report import (  # noqa: PLC0415 - as above
        comparison_data,
        comparison_table,
        draw_comparison,
    )

    comparison = Comparison(given, strategies, against, requests=requests, seed=seed)
    results = comparison.run(curves=figures is not None)
    if figures is not None:
        draw_comparison(comparison, results, figures)
    write(comparison_data(comparison, results), comparison_table(comparison, results), output)
