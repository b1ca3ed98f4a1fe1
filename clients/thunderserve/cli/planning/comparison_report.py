"""A comparison as data, as a table and as figures."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Group as Lines
from rich.text import Text

from thunderserve.cli.planning.charts import Bars, Line, draw_bars, draw_lines
from thunderserve.cli.planning.comparison import OURS
from thunderserve.console.output import make_table
from thunderserve.control.planner.strategies import strategy_named

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import RenderableType

    from thunderserve.cli.planning.comparison import Comparison, Result
    from thunderserve.control.planner.strategies import Score

__all__ = ["comparison_data", "comparison_table", "draw_comparison"]

_COLUMNS = (
    "STRATEGY", "GOODPUT 90%>", "GOODPUT 99%>", "PER $>", "TOKENS/S>", "$/H>", "OURS/ITS>",
    "PER $>", "PLAN CPU S>", "GROUPS",
)  # fmt: skip


def comparison_data(comparison: Comparison, results: Sequence[Result]) -> dict[str, Any]:
    """What `-o json` writes."""
    first, *others = comparison.problems
    ours = next(r.score for r in results if r.cluster == first and r.score.strategy == OURS)
    problem = comparison.problems[first]
    parts = [
        {
            "cluster": cluster,
            "usd_per_hour": comparison.problems[cluster].cluster.usd_per_hour,
            "strategies": [_row(r, ours) for r in results if r.cluster == cluster],
        }
        for cluster in comparison.problems
    ]
    return {
        "cluster": first,
        "model": problem.model.name,
        "workload": problem.workload.name,
        "requests": comparison.requests,
        "target_ratio": problem.target_ratio,
        "slo": {"ttft_s": problem.slo.ttft_s, "tpot_s": problem.slo.tpot_s},
        "usd_per_hour": parts[0]["usd_per_hour"],
        "strategies": parts[0]["strategies"],
        **({"against": parts[1]} if others else {}),
    }


def _row(result: Result, ours: Score) -> dict[str, Any]:
    score, strategy = result.score, strategy_named(result.score.strategy)
    groups = score.plan.groups if score.plan else ()
    row = {
        "name": score.strategy,
        "goodput_rps": score.goodput_rps,
        "goodput_99_rps": score.goodput_99_rps,
        "goodput_per_usd": score.goodput_per_usd,
        "throughput_tokens_per_s": score.throughput_tokens_per_s,
        "usd_per_hour": score.usd_per_hour,
        "planning_cpu_s": score.planning_s,
        "ours_ratio": _ratio(ours.goodput_rps, score.goodput_rps),
        "ours_per_usd_ratio": _ratio(ours.goodput_per_usd, score.goodput_per_usd),
        "groups": dict(Counter(group.phase.value for group in groups)),
        "refused": score.refused,
        "source": strategy.source,
        "departures": list(strategy.departures),
    }
    if result.curves:
        row["by_rate"] = result.curves.by_rate
        row["by_slo_scale"] = result.curves.by_slo_scale
    return row


def _ratio(ours: float, its: float) -> float | None:
    return ours / its if its > 0 else None


def comparison_table(comparison: Comparison, results: Sequence[Result]) -> RenderableType:
    """What a person sees: a table for each cluster, then where strategies depart."""
    data = comparison_data(comparison, results)
    parts: list[RenderableType] = []
    for part in (data, data.get("against")):
        if part is not None:
            title = f"{part['cluster']} · {data['model']} · {data['workload']} · "
            parts.append(Text(f"{title}${part['usd_per_hour']:.2f}/h"))
            parts += [make_table(_COLUMNS, (_cells(row) for row in part["strategies"])), Text()]
    parts.append(
        Text(
            "goodput: requests per second of which that share is in time; PER $: of them, for a "
            "dollar; OURS/ITS: our goodput on the first cluster, as a multiple"
        )
    )
    rows = [
        (row["name"] if i == 0 else "", departure)
        for row in data["strategies"]
        for i, departure in enumerate((row["source"], *row["departures"]))
    ]
    parts += [Text(), make_table(("STRATEGY", "SOURCE, AND DEPARTURES FROM IT"), rows)]
    return Lines(*parts)


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    groups = " ".join(f"{count} {phase}" for phase, count in row["groups"].items())
    ratios = (row["ours_ratio"], row["ours_per_usd_ratio"])
    raw, per_usd = ("-" if ratio is None else f"{ratio:.2f}" for ratio in ratios)
    return (
        row["name"],
        f"{row['goodput_rps']:.2f}",
        f"{row['goodput_99_rps']:.2f}",
        f"{row['goodput_per_usd']:.0f}",
        f"{row['throughput_tokens_per_s']:.0f}",
        f"{row['usd_per_hour']:.2f}",
        raw,
        per_usd,
        f"{row['planning_cpu_s']:.1f}",
        row["refused"] or groups,
    )


def draw_comparison(comparison: Comparison, results: Sequence[Result], folder: Path) -> None:
    """For each cluster: attainment by rate and by scale of the bounds, and goodput."""
    for cluster, problem in comparison.problems.items():
        own = [result for result in results if result.cluster == cluster]
        name = f"{problem.workload.name}-{Path(cluster).stem}"
        title = f"{problem.model.name}, {problem.workload.name}, {Path(cluster).stem}"
        _draw_attainment(own, folder / name, title, problem.target_ratio)
        draw_bars(
            folder / f"{name}-goodput.png",
            [result.score.strategy for result in own],
            [
                Bars("90% in time", tuple(result.score.goodput_rps for result in own)),
                Bars("99% in time", tuple(result.score.goodput_99_rps for result in own)),
            ],
            title=f"Goodput: {title}",
            y_label="requests per second",
        )


def _draw_attainment(own: Sequence[Result], path: Path, title: str, target_ratio: float) -> None:
    drawn = [(result.score.strategy, result.curves) for result in own if result.curves]
    figures = {
        "by-rate": ("requests per second", [Line(n, c.by_rate) for n, c in drawn]),
        "by-slo": ("bounds, times their default", [Line(n, c.by_slo_scale) for n, c in drawn]),
    }
    for kind, (x_label, lines) in figures.items():
        draw_lines(
            path.with_name(f"{path.name}-{kind}.png"),
            lines,
            title=f"Share of requests in time: {title}",
            x_label=x_label,
            y_label="share in time",
            y_range=(0.0, 1.02),
            mark_y=target_ratio,
        )
