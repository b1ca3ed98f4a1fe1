"""What `thunderserve rent` computes, and how it looks."""

from __future__ import annotations

import json
import math
import time
from dataclasses import asdict, dataclass
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Group as Lines
from rich.text import Text

from thunderserve.cli.planning.charts import Line, draw_lines
from thunderserve.cli.planning.inputs import read_problem
from thunderserve.cli.progress import working
from thunderserve.console.output import make_table, say
from thunderserve.console.views import plan_table
from thunderserve.control.planner.problem import Objective, Problem
from thunderserve.control.planner.rent import (
    Effort,
    Market,
    Offer,
    Point,
    Rental,
    cheapest_rental,
    cluster_of,
    front_over,
    read_offers,
    rental_within,
)
from thunderserve.core.catalogue import catalogue
from thunderserve.core.errors import InvalidArgumentError
from thunderserve.core.plan_file import plan_to_mapping

if TYPE_CHECKING:
    from rich.console import RenderableType

    from thunderserve.cli.planning.rent import RentOptions

__all__ = ["Outcome", "Wish", "draw_front", "outcome_table", "outcome_to_mapping", "run"]

_SAMPLE = "sample_offers.json"
_SMALLEST_SHARE, _LARGEST_SHARE = 0.125, 1.5
_FRONT_GAP_RATIO, _FRONT_LIMIT_S = 0.01, 10.0
_SECONDS_PER_HOUR = 3600.0


@dataclass(frozen=True, slots=True)
class Wish:
    """What is asked: a budget or a rate, how many points of the front, and where to draw it."""

    budget: float | None
    rate_at_least: float | None
    points: int
    figure: Path | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """The answer.

    Attributes:
        next_dollar_rps: What one dollar more buys; None where none was asked.
    """

    problem: Problem
    wish: Wish
    offers: dict[str, Offer]
    rental: Rental
    front: tuple[Point, ...] = ()
    dual_rps: float | None = None
    next_dollar_rps: float | None = None


def run(
    given: RentOptions, wish: Wish, file: Path | None, seed: int, time_budget_s: float | None
) -> Outcome:
    """Read the offers, choose, and plan.

    Raises:
        InvalidArgumentError: One line that says what is wrong and what to do.
    """
    _check(given, wish)
    offers, skipped = read_offers(_read_list(file), catalogue(given.profile))
    for line in skipped:
        say(line)
    problem = read_problem(given, cluster=cluster_of(offers))
    effort = Effort(time.monotonic, plan_budget_s=time_budget_s or math.inf, seed=seed)
    with working("weighing offers"):
        market = Market(problem, offers)
        if wish.rate_at_least is not None:
            rental = cheapest_rental(market, wish.rate_at_least, effort)
            return Outcome(problem, wish, market.offers, rental)
        return _within_budget(market, wish, effort)


def _check(given: RentOptions, wish: Wish) -> None:
    if (wish.budget is None) == (wish.rate_at_least is None):
        raise InvalidArgumentError("say either --budget or --rate-at-least", param="budget")
    if wish.figure is not None and not (wish.budget and wish.points):
        raise InvalidArgumentError(
            "--figure draws the front: it needs --budget and --points", param="figure"
        )
    if given.cluster:
        raise InvalidArgumentError("rent makes its cluster of --offers", param="cluster")
    if given.max_nodes > 1:
        raise InvalidArgumentError("rent keeps every group within a host", param="max-nodes")
    if wish.rate_at_least is not None and given.objective is not Objective.CAPACITY:
        raise InvalidArgumentError(
            "--rate-at-least is a rate on target: it needs --objective capacity", param="objective"
        )


def _within_budget(market: Market, wish: Wish, effort: Effort) -> Outcome:
    budget = wish.budget or 0.0
    rental = rental_within(market, budget, effort)
    front_effort = Effort(effort.clock, _FRONT_LIMIT_S, _FRONT_GAP_RATIO)
    front = front_over(market, _budgets(budget, wish.points), front_effort)
    more = market.most(budget + 1, time_limit_s=effort.time_limit_s, gap_ratio=effort.gap_ratio)
    counted = market.problem.objective is Objective.CAPACITY
    reached = 0.0 if more is None else (more.served_rps if counted else more.attained_rps)
    return Outcome(
        market.problem,
        wish,
        market.offers,
        rental,
        front,
        dual_rps=market.dollar_rps(budget),
        next_dollar_rps=max(0.0, reached - rental.objective_rps),
    )


def _budgets(budget: float, points: int) -> list[float]:
    """Evenly spaced factors below and above the budget itself."""
    step = (_LARGEST_SHARE / _SMALLEST_SHARE) ** (1 / max(1, points - 1))
    return [round(budget * _SMALLEST_SHARE * step**place, 2) for place in range(points)]


def _read_list(file: Path | None) -> Any:
    """The offers of a file, or the sample."""
    if file is None:
        say("no --offers: a sample of made-up offers")
        text = resources.files("thunderserve.cli.planning").joinpath(_SAMPLE).read_text("utf-8")
        return json.loads(text)
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise InvalidArgumentError(
            f"--offers {file} cannot be read: {error.strerror}", param="offers"
        ) from error
    except ValueError as error:
        raise InvalidArgumentError(
            f"{file} is not JSON: {error}; write it with `vastai search offers --raw`",
            param="offers",
        ) from error


def outcome_to_mapping(outcome: Outcome) -> dict[str, Any]:
    """The answer as the command's documentation describes it."""
    rental, problem = outcome.rental, outcome.problem
    predicted = rental.plan.predicted
    return {
        "model": problem.model.name,
        "workload": problem.workload.name,
        "objective": problem.objective.value,
        "target_ratio": problem.target_ratio,
        "budget_usd_per_hour": outcome.wish.budget,
        "rate_at_least_rps": outcome.wish.rate_at_least,
        "offers": [_taken(outcome.offers[name], number) for name, number in rental.rented.items()],
        "cost": {
            "usd_per_hour": rental.usd_per_hour,
            "gpu_usd_per_hour": rental.gpu_usd_per_hour,
            "traffic_usd_per_hour": rental.traffic_usd_per_hour,
        },
        "objective_rps": rental.objective_rps,
        "bound_rps": rental.bound_rps if math.isfinite(rental.bound_rps) else None,
        "goodput_rps": predicted.goodput_rps if predicted else 0.0,
        "requests_per_usd": rental.objective_rps * _SECONDS_PER_HOUR / rental.usd_per_hour,
        "shadow_price": {
            "dual_rps_per_usd": outcome.dual_rps,
            "next_dollar_rps": outcome.next_dollar_rps,
        },
        "front": [asdict(point) for point in outcome.front],
        "plan": plan_to_mapping(rental.plan),
    }


def _taken(offer: Offer, gpus: int) -> dict[str, Any]:
    return {
        "id": offer.id,
        "gpu": offer.gpu.name,
        "gpus": gpus,
        "of_gpus": offer.gpus,
        "usd_per_hour": gpus * offer.gpu.usd_per_hour,
        "location": offer.location,
        "reliability_ratio": offer.reliability_ratio,
    }


def outcome_table(outcome: Outcome) -> RenderableType:
    """The answer for people."""
    rows = [
        (t["id"], t["gpu"], f"{t['gpus']} of {t['of_gpus']}", f"{t['usd_per_hour']:.2f}",
         t["location"], f"{t['reliability_ratio']:.3f}")
        for t in outcome_to_mapping(outcome)["offers"]
    ]  # fmt: skip
    columns = ("OFFER", "GPU", "GPUS", "$/H>", "LOCATION", "RELIABLE>")
    parts: list[RenderableType] = [make_table(columns, rows), Text(), Text(_summary(outcome))]
    if outcome.front:
        parts += [Text(), _front_table(outcome.front)]
    return Lines(*parts, Text(), plan_table(outcome.rental.plan))


def _summary(outcome: Outcome) -> str:
    rental, target = outcome.rental, outcome.problem.target_ratio
    counted = outcome.problem.objective is Objective.CAPACITY
    what = f"of which {target:.0%} are in time" if counted else "in time"
    split = f"GPUs {rental.gpu_usd_per_hour:.2f}, KV traffic {rental.traffic_usd_per_hour:.2f}"
    lines = [
        f"{rental.usd_per_hour:.2f} $/h: {split}",
        f"{rental.objective_rps:.3g} requests/s {what}",
    ]
    if math.isfinite(rental.bound_rps):
        lines[-1] += f"; no choice within the budget has more than {rental.bound_rps:.3g}"
    if outcome.dual_rps is not None:
        lines.append(
            f"one dollar per hour more buys {outcome.next_dollar_rps:.3g} requests/s "
            f"({outcome.dual_rps:.3g} were hosts divisible)"
        )
    return "\n".join(lines)


def _front_table(front: tuple[Point, ...]) -> RenderableType:
    rows = (
        (f"{p.budget_usd_per_hour:.2f}", f"{p.usd_per_hour:.2f}", f"{p.traffic_usd_per_hour:.2f}",
         p.gpus, f"{p.served_rps:.3g}", f"{p.goodput_rps:.3g}", f"{p.dollar_rps:.3g}")
        for p in front
    )  # fmt: skip
    columns = (
        *("BUDGET $/H>", "SPENT>", "TRAFFIC>", "GPUS>", "SERVED/S>", "IN TIME/S>"),
        "A DOLLAR MORE>",
    )
    return make_table(columns, rows)


def draw_front(outcome: Outcome, path: Path) -> None:
    """What each budget buys, and what no choice exceeds."""
    front = outcome.front
    counted = outcome.problem.objective is Objective.CAPACITY
    bought = tuple(
        (p.budget_usd_per_hour, p.served_rps if counted else p.goodput_rps) for p in front
    )
    bound = tuple((p.budget_usd_per_hour, p.bound_rps) for p in front)
    model, workload = outcome.problem.model.name, outcome.problem.workload.name
    draw_lines(
        path,
        [Line("bought", bought), Line("bound", bound)],
        title=f"What a budget buys: {model}, {workload}",
        x_label="budget, $/h, KV traffic included",
        y_label="requests/s",
        y_range=(0.0, max(y for _, y in bound) * 1.05),
    )
