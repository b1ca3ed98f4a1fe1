"""One look for all figures: quiet axes with units, colours that all can tell apart, direct labels.

Figures are PNG files, drawn without a display.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from thunderserve.core.errors import InvalidArgumentError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["PALETTE", "Bars", "Line", "draw_bars", "draw_lines"]

# Okabe and Ito, "Color Universal Design" (2008); black first, for what the figure is about.
PALETTE = (
    "#000000",
    "#D55E00",
    "#0072B2",
    "#009E73",
    "#CC79A7",
    "#E69F00",
    "#56B4E9",
    "#8A8A8A",
)
"""Colours, in the order in which they are given out."""

_INCHES = (7.2, 4.2)
_DPI = 150
_GRID = "#DDDDDD"
_LABEL_GAP = 0.045


@dataclass(frozen=True, slots=True)
class Line:
    """Points joined by a line, and its name."""

    name: str
    points: tuple[tuple[float, float], ...]


@dataclass(frozen=True, slots=True)
class Bars:
    """One bar for every category, and their name."""

    name: str
    heights: tuple[float, ...]


def draw_lines(
    path: Path,
    lines: Sequence[Line],
    *,
    title: str,
    x_label: str,
    y_label: str,
    y_range: tuple[float, float] | None = None,
    mark_y: float | None = None,
    log_x: bool = False,
) -> None:
    """Draw lines, each named at its end.

    Args:
        path: Of the PNG file.
        lines: The first is the one that the figure is about.
        title: What is to be seen.
        x_label: With its unit.
        y_label: With its unit.
        y_range: Of the axis; what the points need when left out.
        mark_y: A height to mark, such as a target.
        log_x: Give every factor the same width, and the points' own values as ticks.
    """
    figure, axes = _figure(title, x_label, y_label)
    if log_x:
        ticks = sorted({x for line in lines for x, _ in line.points})
        axes.set_xscale("log")
        axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        axes.minorticks_off()
    for i, line in enumerate(lines):
        xs, ys = zip(*line.points, strict=True) if line.points else ((), ())
        width = 2.4 if i == 0 else 1.4
        axes.plot(xs, ys, color=_colour(i), linewidth=width, marker="o", markersize=3)
    if y_range is not None:
        axes.set_ylim(*y_range)
    if mark_y is not None:
        axes.axhline(mark_y, color="#8A8A8A", linewidth=1, linestyle=(0, (4, 3)))
    _name_ends(axes, lines)
    _save(figure, path)


def draw_bars(
    path: Path,
    categories: Sequence[str],
    bars: Sequence[Bars],
    *,
    title: str,
    y_label: str,
) -> None:
    """Draw bars in groups, one group for each category, each bar with its height above it."""
    figure, axes = _figure(title, "", y_label)
    width = 0.8 / max(1, len(bars))
    for i, each in enumerate(bars):
        places = [at + (i - (len(bars) - 1) / 2) * width for at in range(len(categories))]
        drawn = axes.bar(places, each.heights, width * 0.92, color=_colour(i), label=each.name)
        axes.bar_label(drawn, fmt="%.3g", fontsize=7, padding=1)
    axes.set_xticks(range(len(categories)), categories)
    axes.tick_params(axis="x", length=0)
    axes.grid(visible=False, axis="x")
    if len(bars) > 1:
        axes.legend(frameon=False, fontsize=8, ncols=len(bars), loc="upper right")
    axes.margins(y=0.15)
    _save(figure, path)


def _figure(title: str, x_label: str, y_label: str) -> tuple[Figure, Axes]:
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415 - an extra
        from matplotlib.figure import Figure  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise InvalidArgumentError(
            "figures need matplotlib: pip install 'thunderserve[figures]'", param="figures"
        ) from error
    figure = Figure(figsize=_INCHES, dpi=_DPI, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.set_title(title, loc="left", fontsize=10, fontweight="bold")
    axes.set_xlabel(x_label, fontsize=9)
    axes.set_ylabel(y_label, fontsize=9)
    axes.tick_params(labelsize=8)
    axes.grid(color=_GRID, linewidth=0.6)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    return figure, axes


def _name_ends(axes: Axes, lines: Sequence[Line]) -> None:
    """Write each line's name at its right end, moved apart where they would overlap."""
    low, high = axes.get_ylim()
    named = [(line.points[-1], i) for i, line in enumerate(lines) if line.points]
    right = max((x for (x, _), _ in named), default=0.0)
    below = float("-inf")
    for (_, y), i in sorted(named, key=lambda each: each[0][1]):
        height = max(y, below + _LABEL_GAP * (high - low))
        below = height
        axes.annotate(
            lines[i].name,
            (right, height),
            xytext=(6, 0),
            textcoords="offset points",
            color=_colour(i),
            fontsize=8,
            fontweight="bold" if i == 0 else "normal",
            va="center",
            annotation_clip=False,
        )


def _colour(place: int) -> str:
    return PALETTE[place % len(PALETTE)]


def _save(figure: Figure, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
