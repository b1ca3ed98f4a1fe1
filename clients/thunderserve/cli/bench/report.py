"""How the figures of `bench kvlink` are shown: a table, and a picture."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Group as Lines
from rich.text import Text

from thunderserve.cli.bench.links import LINKS
from thunderserve.cli.planning.charts import Bars, draw_bars
from thunderserve.console.output import make_table

if TYPE_CHECKING:
    from pathlib import Path

    from rich.console import RenderableType

    from thunderserve.cli.bench.figures import Figures

__all__ = ["draw_figures", "figures_table"]

_LINK_NAMES = {
    "100mbit": "0.1 Gbit/s",
    "1gbit": "1 Gbit/s",
    "5gbit": "5 Gbit/s",
    "1gbit_10ms": "1 Gbit/s, 10 ms",
}


def figures_table(figures: Figures) -> RenderableType:
    """All of them, and what would bring those that are missing."""
    rows = [(name, _shown(value)) for name, value in figures.values.items()]
    rows += [(name, "-") for name in figures.missing]
    reasons = dict.fromkeys(figures.missing.values())
    return Lines(make_table(("FIGURE", "VALUE>"), rows), *map(Text, reasons))


def draw_figures(path: Path, figures: Figures) -> None:
    """What each link delivers at 4 bits, over raw16 and over iperf3's bytes, as a PNG."""
    links = [link.name for link in LINKS if f"delivered_x_raw16_{link.name}" in figures.values]
    series = {
        "KV over raw16": "delivered_x_raw16",
        "KV over bf16 at iperf3's rate": "delivered_x_bf16_at_iperf3",
        "wire over iperf3": "wire_x_iperf3",
    }
    bars = [
        Bars(name, tuple(float(figures.values[f"{key}_{link}"]) for link in links))
        for name, key in series.items()
    ]
    draw_bars(
        path,
        [_LINK_NAMES[link] for link in links],
        bars,
        title="KV cache at 4 bits between two hosts",
        y_label="ratio in one run",
    )


def _shown(value: float | str) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
