"""How changes of a fleet look in a table: one plan beside another."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

from rich.console import Group as Lines
from rich.text import Text

from thunderserve.console.output import make_table
from thunderserve.core.plan import Prediction
from thunderserve.core.plan_diff import PlanDiff, diff_plans

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import RenderableType

    from thunderserve.core.plan import Plan

__all__ = ["Comparison", "comparison_view"]


@dataclass(frozen=True, slots=True)
class Comparison:
    """One plan beside another.

    Attributes:
        now: What the cost model expects of the plan that stands.
        then: What it expects of the other one; None when nothing of it is live.
        flip_s: Seconds that this fleet's flips took on average; None before the first.
    """

    diff: PlanDiff
    now: Prediction | None
    then: Prediction | None
    flip_s: float | None

    @classmethod
    def of(cls, now: Plan, then: Plan, flip_s: float | None) -> Comparison:
        """Both plans with their predictions."""
        return cls(diff_plans(now, then), now.predicted, then.predicted, flip_s)

    @property
    def summary(self) -> str:
        """In one line: what it takes, and what it brings."""
        if not self.diff.groups and not self.diff.routes:
            return "the plans serve alike"
        parts = [f"{len(self.diff.routes)} routes change"]
        if flips := self.diff.flips:
            took = "" if self.flip_s is None else f", about {self.flip_s * len(flips):.1f} s"
            names = ", ".join(f"{each.group} to {each.after}" for each in flips)
            parts.append(f"{len(flips)} flips ({names}{took}), no weights loaded")
        parts += self._gain()
        return "; ".join(parts)

    def _gain(self) -> list[str]:
        if self.now is None or self.then is None:
            return []
        before, after = self.now.goodput_rps, self.then.goodput_rps
        more = after - before
        word = "more" if more >= 0 else "fewer"
        share = f" ({abs(more) / before:.1%})" if before > 0 else ""
        return [f"{abs(more):.3g} req/s {word} in time{share}"]


def comparison_view(found: Comparison) -> RenderableType:
    """What changes, figure by figure, and the sum of it."""
    groups = [(g.group, g.before or "-", g.after or "-") for g in found.diff.groups]
    routes = [(r.prefill, r.decode, f"{r.before:.4f}", f"{r.after:.4f}") for r in found.diff.routes]
    figures = [
        (figure.name, _figure(found.now, figure.name), _figure(found.then, figure.name))
        for figure in fields(Prediction)
        if found.now or found.then
    ]
    tables: list[tuple[Sequence[str], Sequence[Sequence[object]]]] = [
        (("GROUP", "NOW", "THEN"), groups),
        (("PREFILL", "DECODE", "NOW>", "THEN>"), routes),
        (("EXPECTED", "NOW>", "THEN>"), figures),
    ]
    parts: list[RenderableType] = []
    for columns, rows in tables:
        if rows:
            parts += [make_table(columns, rows), Text()]
    return Lines(*parts, Text(found.summary))


def _figure(prediction: Prediction | None, name: str) -> str:
    value = None if prediction is None else getattr(prediction, name)
    return "-" if value is None else f"{value:.4g}"
