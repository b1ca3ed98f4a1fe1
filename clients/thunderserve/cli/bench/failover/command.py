"""`thunderserve bench failover`: what failures, flips and shifts cost those who are served.

JSON is one flat object of named figures; null where one could not be had, and stderr says why. All
are measured in the run, on an emulated fleet under load: see docs/failover.md for each.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from thunderserve.cli.bench.parts import parts_named
from thunderserve.console.output import OutputFormat, say, write

__all__ = ["Part", "command"]


class Part(StrEnum):
    """What can be measured alone."""

    NODE_LOSS = "node-loss"
    FLIP = "flip"
    ETCD = "etcd"
    SPLIT_BRAIN = "split-brain"
    SHIFT = "shift"
    STEADY = "steady"


def command(
    *,
    only: Annotated[str, typer.Option(help=f"Parts, separated by commas: {', '.join(Part)}.")] = "",
    cluster: Annotated[
        str, typer.Option(help="What is emulated: a preset's name, or a YAML file.")
    ] = "paper-cloud-32",
    workload: Annotated[str, typer.Option(help="What arrives.")] = "azure-conv",
    kvlink: Annotated[
        str, typer.Option(help="real sidecars and sockets, or modelled: in memory.")
    ] = "real",
    seed: Annotated[int, typer.Option(help="Of arrivals and prompts.")] = 0,
    output: Annotated[
        OutputFormat, typer.Option("--output", "-o", help="How data is written.")
    ] = OutputFormat.TABLE,
) -> None:
    """Break an emulated fleet under load, flip its groups, shift its load, and measure."""
    parts = parts_named(Part, only)
    from thunderserve.cli.bench.failover.measure import measure  # noqa: PLC0415 - `--help` is quick
    from thunderserve.cli.bench.report import figures_table  # noqa: PLC0415 - as above
    from thunderserve.cli.emulated.options import EmulatedOptions  # noqa: PLC0415 - as above
    from thunderserve.runtime.config import build_config  # noqa: PLC0415 - as above

    settings = {"cluster": cluster, "workload": workload, "kvlink": kvlink}
    figures = measure(parts, build_config(EmulatedOptions, settings), seed)
    for line in figures.reasons():
        say(line)
    write(figures.flat(), figures_table(figures), output)
