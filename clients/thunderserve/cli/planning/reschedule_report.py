"""What `thunderserve reschedule` computes and shows."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Group as Lines
from rich.text import Text

from thunderserve.cli.planning.files import read_plan
from thunderserve.cli.planning.inputs import read_planned_problem
from thunderserve.cli.progress import working
from thunderserve.console.output import make_table, say
from thunderserve.console.views import plan_report
from thunderserve.control.planner.change import as_started, without_nodes
from thunderserve.control.planner.rescheduling import (
    Replan,
    Rescheduled,
    reschedule_plan,
    weigh_replan,
)
from thunderserve.control.planner.solve import solve
from thunderserve.core.errors import ThunderServeError
from thunderserve.core.plan_file import plan_to_mapping

if TYPE_CHECKING:
    from rich.console import RenderableType

    from thunderserve.cli.planning.options import PlannedOptions
    from thunderserve.control.planner.problem import Problem
    from thunderserve.core.plan import Plan

__all__ = ["Change", "Outcome", "Replanning", "outcome_table", "outcome_to_mapping", "run"]


@dataclass(frozen=True, slots=True)
class Change:
    """What has happened: nodes that are gone, and a file of links as they are now."""

    lost: tuple[str, ...]
    links: Path | None


@dataclass(frozen=True, slots=True)
class Replanning:
    """How a full re-plan is weighed against the light one; a budget of 0 leaves it out."""

    time_budget_s: float
    load_bytes_per_s: float
    seed: int


@dataclass(frozen=True, slots=True)
class Outcome:
    """A re-schedule and, when it was asked for, what a full re-plan would be."""

    rescheduled: Rescheduled
    replan: Replan | None


def run(given: PlannedOptions, plan_file: Path, change: Change, full: Replanning) -> Outcome:
    """Re-schedule the plan of a file.

    Raises:
        ThunderServeError: One line that says which input is wrong, or that nothing is left.
    """
    plan = read_plan(plan_file)
    problem = read_planned_problem(given, plan)
    found = reschedule_plan(problem, plan, lost=change.lost)
    if change.links is not None:
        anew = f"links as in {change.links.name}; {found.plan.reason}"
        found = replace(found, plan=replace(found.plan, reason=anew))
    return Outcome(found, _weigh(problem, found.plan, change, full))


def _weigh(problem: Problem, light: Plan, change: Change, full: Replanning) -> Replan | None:
    """None when it was not asked for, or there is no such plan."""
    if not full.time_budget_s:
        return None
    left = replace(problem, cluster=without_nodes(problem.cluster, change.lost))
    left = as_started(left, light)
    try:
        with working("searching for a full re-plan"):
            anew = solve(
                left, seed=full.seed, time_budget_s=full.time_budget_s, clock=time.monotonic
            )
    except ThunderServeError as error:
        say(f"no full re-plan: {error}")
        return None
    return weigh_replan(left, light.groups, anew, bytes_per_s=full.load_bytes_per_s)


def outcome_to_mapping(outcome: Outcome) -> dict[str, Any]:
    """The new plan's file, and beside the plan what it gains."""
    found = outcome.rescheduled
    gains: dict[str, Any] = {
        "gone": list(found.gone),
        "flips": [asdict(flip) for flip in found.flips],
        "cannot_flip": list(found.fixed),
        "goodput_kept_routes_rps": found.kept_rps,
        "goodput_without_flips_rps": found.routed_rps,
        "goodput_rps": found.goodput_rps,
    }
    if (replan := outcome.replan) is not None:
        gains |= {
            "full_replan_goodput_rps": replan.goodput_rps,
            "full_replan_gain_rps": replan.goodput_rps - found.goodput_rps,
            "full_replan_reload_s": replan.reload_s,
            "full_replan_payback_s": replan.payback_s(found.goodput_rps),
        }
    return plan_to_mapping(found.plan) | {"reschedule": gains}


def outcome_table(outcome: Outcome) -> RenderableType:
    """The new plan, its flips, and the goodput of each way to answer what happened."""
    found = outcome.rescheduled
    parts: list[RenderableType] = [plan_report(found.plan), Text()]
    if found.flips:
        rows = ((f.group, f"{f.before} -> {f.after}") for f in found.flips)
        parts += [make_table(("GROUP", "FLIP"), rows), Text()]
    parts.append(make_table(("ANSWER", "GOODPUT req/s>", "LOADS WEIGHTS s>"), _answers(outcome)))
    if found.fixed:
        parts.append(Text(f"cannot flip, having more than one stage: {', '.join(found.fixed)}"))
    if outcome.replan is not None:
        parts.append(Text(_payback(outcome.replan, found.goodput_rps)))
    return Lines(*parts)


def _answers(outcome: Outcome) -> list[tuple[str, str, str]]:
    found = outcome.rescheduled
    rows = [
        ("nothing: the old routes", f"{found.kept_rps:.3f}", "0"),
        ("new routes", f"{found.routed_rps:.3f}", "0"),
        (f"new routes, {len(found.flips)} flips", f"{found.goodput_rps:.3f}", "0"),
    ]
    if (replan := outcome.replan) is not None:
        rows.append(("full re-plan", f"{replan.goodput_rps:.3f}", f"{replan.reload_s:.1f}"))
    return rows


def _payback(replan: Replan, light_rps: float) -> str:
    after_s = replan.payback_s(light_rps)
    if after_s is None:
        return "a full re-plan gains nothing on top"
    return (
        f"a full re-plan gains {replan.goodput_rps - light_rps:.3f} req/s on top and has paid for "
        f"its loading after {after_s:.0f} s"
    )
