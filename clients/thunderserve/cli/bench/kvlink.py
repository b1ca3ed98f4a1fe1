"""`thunderserve bench kvlink`: what the KV wire reaches on this machine.

JSON is one flat object of named figures; null where one could not be had, and stderr says why. Its
keys: `CODEC_KEYS`, `QUALITY_KEYS`, `HIDING_KEYS`, and `LINK_KEYS` with each link's name behind.
Ratios end on `_ratio` or have `_x_` in their name, before what they are ratios to:

- `quantize_x_memcpy`: bytes of 16-bit values a second on one core, over memcpy's.
- `wire_x_iperf3_LINK`: bytes of int4 frames on the link, over iperf3's in the same run.
- `delivered_x_raw16_LINK`: values that reach the decode engine with int4, over with raw16;
  `delivered_x_bf16_at_iperf3_LINK`: over bf16 values sent raw at iperf3's rate.
- `hidden_transfer_ratio`: the share of a transfer that is over when prefill is.
"""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path  # noqa: TC003 - typer reads it at run time
from typing import Annotated

import typer

from thunderserve.cli.bench.parts import parts_named
from thunderserve.console.output import OutputFormat, say, write

__all__ = ["Part", "command"]


class Part(StrEnum):
    """What can be measured alone."""

    CODEC = "codec"
    QUALITY = "quality"
    HIDING = "hiding"
    LINKS = "links"


def command(
    *,
    only: Annotated[
        str, typer.Option(help="Parts, separated by commas: codec, quality, hiding, links.")
    ] = "",
    figure: Annotated[Path | None, typer.Option(help="A PNG file to draw the links in.")] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="Shorter; the figures are rough, torch is not compiled.")
    ] = False,
    output: Annotated[
        OutputFormat, typer.Option("--output", "-o", help="How data is written.")
    ] = OutputFormat.TABLE,
) -> None:
    """Measure the KV wire: codec, quality, and transfers over links that are built for it."""
    parts = parts_named(Part, only)
    from thunderserve.cli.bench.figures import Effort  # noqa: PLC0415 - `--help` is quick
    from thunderserve.cli.bench.measure import measure  # noqa: PLC0415 - as above
    from thunderserve.cli.bench.report import draw_figures, figures_table  # noqa: PLC0415 - as above

    figures = measure(parts, Effort.quick() if quick else Effort(), compiled=not quick)
    for line in figures.reasons():
        say(line)
    if figure is not None:
        draw_figures(figure, figures)
    write(figures.flat(), figures_table(figures), output)
