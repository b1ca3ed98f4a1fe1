"""What a strategy's plan serves, by simulation: the same judge for all."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from thunderserve.control.planner.simulator import (
    AS_BUILT,
    RateSearch,
    ServingPolicy,
    highest_rate,
    simulate,
)
from thunderserve.control.planner.strategies.registry import strategy_named
from thunderserve.control.planner.validate import validate
from thunderserve.core.errors import InvalidArgumentError
from thunderserve.core.plan import Plan

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from thunderserve.control.planner.problem import Problem
    from thunderserve.control.planner.strategies.strategy import Strategy
    from thunderserve.core.trace import Trace

__all__ = ["STRICT_RATIO", "Curves", "Score", "attainment_curves", "score_strategy"]

STRICT_RATIO = 0.99
"""The stricter of the two shares of requests for which a goodput is reported."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """What a strategy makes of a cluster.

    Attributes:
        plan: With the highest rate on target; None when it has none, and `refused` says why.
        policy: How its system serves that plan, of the ways it may.
        goodput_rps: The highest rate of which the problem's target share is in time.
        goodput_99_rps: The highest of which 99% is; the plan may be another.
        throughput_tokens_per_s: Answer tokens at the goodput.
        usd_per_hour: Of the GPUs that the plan uses.
        planning_s: By the clock that was given.
    """

    strategy: str
    plan: Plan | None = None
    policy: ServingPolicy = AS_BUILT
    goodput_rps: float = 0.0
    goodput_99_rps: float = 0.0
    throughput_tokens_per_s: float = 0.0
    usd_per_hour: float = 0.0
    planning_s: float = 0.0
    refused: str = ""

    @property
    def goodput_per_usd(self) -> float:
        """Requests in time for a dollar: per second, by dollars per second."""
        return self.goodput_rps * 3600 / self.usd_per_hour if self.usd_per_hour > 0 else 0.0


@dataclass(frozen=True, slots=True)
class Curves:
    """Share of requests in time: (requests per second, share) and (scale of the bounds, share)."""

    by_rate: tuple[tuple[float, float], ...]
    by_slo_scale: tuple[tuple[float, float], ...]


def score_strategy(
    name: str, problem: Problem, trace: Trace, *, seed: int = 0, clock: Callable[[], float]
) -> Score:
    """Plan for both shares, check the plans, and search the highest rates that they serve.

    For each share the better plan counts: the cost model that made them may be wrong.

    Args:
        name: The strategy's.
        problem: As it is for all strategies.
        trace: Its requests arrive, sooner or later after each other.
        seed: Of the strategy's draws.
        clock: Seconds, for how long planning takes.
    """
    strategy, strict = strategy_named(name), replace(problem, target_ratio=STRICT_RATIO)
    began_s = clock()
    try:
        plan = strategy.plan(problem, seed=seed, clock=clock)
        planning_s = clock() - began_s
        plans = (plan, strategy.plan(strict, seed=seed, clock=clock))
        best = _best(strategy, plans, problem, trace)
        best_99 = _best(strategy, plans, strict, trace)
    except InvalidArgumentError as error:
        return Score(strategy=name, refused=str(error))
    goodput = best.search
    tokens = (
        point.report.throughput_tokens_per_s
        for point in goodput.points
        if point.rate_rps == goodput.rate_rps
    )
    return Score(
        strategy=name,
        plan=best.plan,
        policy=best.policy,
        goodput_rps=goodput.rate_rps,
        goodput_99_rps=best_99.search.rate_rps,
        throughput_tokens_per_s=next(tokens, 0.0),
        usd_per_hour=_usd_per_hour(best.plan, problem),
        planning_s=planning_s,
    )


@dataclass(frozen=True, slots=True)
class _Found:
    plan: Plan
    policy: ServingPolicy
    search: RateSearch


def _best(strategy: Strategy, plans: Iterable[Plan], problem: Problem, trace: Trace) -> _Found:
    """The plan, and the way to serve it, with the highest rate on target.

    Raises:
        InvalidArgumentError: A plan breaks a rule.
    """
    posed = strategy.pose(problem)
    found = []
    for plan in dict.fromkeys(plans):
        if violations := validate(plan, posed):
            raise InvalidArgumentError(f"{strategy.name}: {violations[0].reason}")
        for policy in strategy.policies:
            search = highest_rate(
                plan, posed, trace, target_ratio=problem.target_ratio, policy=policy
            )
            found.append(_Found(plan, policy, search))
    return max(found, key=lambda each: each.search.rate_rps)


def attainment_curves(
    score: Score,
    problem: Problem,
    trace: Trace,
    *,
    rates_rps: Sequence[float],
    slo_scales: Sequence[float],
    rate_rps: float,
) -> Curves:
    """How a scored plan fares at several rates, and under stricter and looser bounds.

    Args:
        score: With a plan.
        problem: As for `score_strategy`.
        trace: As for `score_strategy`.
        rates_rps: To look at.
        slo_scales: To look at; all bounds are multiplied by one.
        rate_rps: At which they are looked at.
    """
    plan = score.plan
    if plan is None:
        return Curves((), ())
    posed = strategy_named(score.strategy).pose(problem)
    runs = {
        rate: simulate(plan, posed, trace.with_rate(rate), policy=score.policy)
        for rate in sorted({*rates_rps, rate_rps})
    }
    outcomes = runs[rate_rps].outcomes
    return Curves(
        by_rate=tuple((rate, runs[rate].slo_attainment_ratio) for rate in rates_rps),
        by_slo_scale=tuple(
            (scale, outcomes.attainment(problem.slo.scaled(scale)).slo_ratio)
            for scale in slo_scales
        ),
    )


def _usd_per_hour(plan: Plan, problem: Problem) -> float:
    prices = {kind.name: kind.usd_per_hour for kind in problem.cluster.types}
    return sum(prices[gpu.type] for group in plan.groups for gpu in group.gpus)
