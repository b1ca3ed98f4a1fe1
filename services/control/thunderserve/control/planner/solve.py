"""The planner's entry: a problem in, a plan out."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from enum import StrEnum
from itertools import chain, takewhile
from typing import TYPE_CHECKING

from thunderserve.control.planner.assembly import plan_of
from thunderserve.control.planner.certificate import best_of, takings
from thunderserve.control.planner.search import SearchSpace, tabu_search
from thunderserve.core.draws import Draws
from thunderserve.core.plan import Plan

if TYPE_CHECKING:
    from collections.abc import Callable

    from thunderserve.control.planner.flow import Assessment, Evaluator
    from thunderserve.control.planner.problem import Problem
    from thunderserve.control.planner.search import Layout

__all__ = ["Ending", "SearchReport", "SearchSettings", "Solution", "solve", "solve_reported"]

STRATEGY = "thunderserve"

SMALL_GPUS = 8
SMALL_TAKINGS = 30
"""GPUs, and ways to take some of one node's, up to which the search's plan is not the last word."""

WHOLE_EFFORT_GPUS = 128
"""GPUs beyond which a search does less."""


@dataclass(frozen=True, slots=True)
class SearchSettings:
    """How hard to search.

    Attributes:
        starts: Layouts that are climbed from; it begins at the best of them.
        neighbours: Neighbours of every state whose flow is solved.
        samples: Pairs of moves that are looked at from every state, without a flow.
        tenure: States that stay forbidden.
        leash: Iterations without a better state before it returns to the best.
        patience: Iterations without a better state before it ends.
        evaluations: Flows that are solved, about, before it ends.
        proves_small: On a few GPUs the proven optimum is the plan, where the search found less.
    """

    starts: int = 8
    neighbours: int = 12
    samples: int = 200
    tenure: int = 50
    leash: int = 5
    patience: int = 25
    evaluations: int = 2000
    proves_small: bool = True

    def for_gpus(self, gpus: int) -> SearchSettings:
        """The same for a cluster of that size.

        A flow takes longer the more groups it has, so of a large cluster fewer are solved. Counts,
        unlike a clock, give the same plan on every machine.
        """
        ratio = min(1.0, WHOLE_EFFORT_GPUS / gpus)
        return replace(
            self,
            starts=max(1, round(ratio * self.starts)),
            evaluations=max(1, round(ratio * self.evaluations)),
        )


class Ending(StrEnum):
    """Why a search ended.

    PATIENCE: No better state was found for long.
    EVALUATIONS: As many flows as it may were solved.
    TIME: Its time was over: another run, on another machine, may find another plan.
    """

    PATIENCE = "patience"
    EVALUATIONS = "evaluations"
    TIME = "time"


@dataclass(frozen=True, slots=True)
class SearchReport:
    """How a search went; no part of the plan.

    Attributes:
        ending: Why it ended.
        score: What the plan is worth: requests per second, as the objective counts them.
        evaluations: Flows that were solved.
        seconds: By the caller's clock.
        progress: (flows solved, score) whenever a better state was found.
    """

    ending: Ending
    score: float
    evaluations: int
    seconds: float
    progress: tuple[tuple[int, float], ...]

    @property
    def repeatable(self) -> bool:
        """The same problem and seed give this plan everywhere."""
        return self.ending is not Ending.TIME


@dataclass(frozen=True, slots=True)
class Solution:
    """A plan, and how it was found."""

    plan: Plan
    report: SearchReport


def solve(
    problem: Problem,
    *,
    seed: int = 0,
    time_budget_s: float = math.inf,
    clock: Callable[[], float],
    settings: SearchSettings | None = None,
) -> Plan:
    """Groups, phases, parallelism and routes for the problem; see `solve_reported`."""
    return solve_reported(
        problem, seed=seed, time_budget_s=time_budget_s, clock=clock, settings=settings
    ).plan


def solve_reported(
    problem: Problem,
    *,
    seed: int = 0,
    time_budget_s: float = math.inf,
    clock: Callable[[], float],
    settings: SearchSettings | None = None,
) -> Solution:
    """A plan for the problem, and how it was found.

    The search ends by what it did, so the same problem and seed give the same plan on any machine,
    however busy. Only a time budget cuts it short; the report and the plan's reason say so then.

    Args:
        problem: What to plan for.
        seed: Of the moves.
        time_budget_s: When to stop searching at the latest; never when left out.
        clock: Monotonic seconds.
        settings: How hard to search.

    Raises:
        InvalidArgumentError: No group of the cluster's GPUs holds the model.
    """
    settings = (settings or SearchSettings()).for_gpus(len(problem.cluster.gpus))
    deadline = _Deadline(time_budget_s, clock)
    space = SearchSpace(problem, Draws(seed), samples=settings.samples, enough=deadline.passed)
    watch = _Watch(space, settings, deadline)
    assessed = space.assess(_search(space, settings, watch))
    if settings.proves_small and _is_small(problem) and not deadline.passed():
        assessed = max(assessed, _proven(space.evaluator), key=lambda found: found.score)
    if len(problem.engine.chunk_tokens) > 1 and not deadline.passed():
        assessed = space.evaluator.assess_best_chunk(assessed.seats)
    plan = plan_of(space.evaluator, assessed, strategy=STRATEGY, seed=seed)
    report = watch.report(assessed.score)
    reasons = (plan.reason, "" if report.repeatable else f"search cut after {time_budget_s:g} s")
    reason = "; ".join(filter(None, reasons))
    return Solution(replace(plan, search_seconds=report.seconds, reason=reason), report)


def _is_small(problem: Problem) -> bool:
    """True when the integer program that proves a plan the best takes about a second.

    It does not know how to keep groups flippable.
    """
    few = len(problem.cluster.gpus) <= SMALL_GPUS and takings(problem) <= SMALL_TAKINGS
    return few and problem.flippable_ratio <= 0


def _proven(evaluator: Evaluator) -> Assessment:
    """The best groups there are; searches miss what only uneven pipelines reach."""
    best = best_of(evaluator)
    return evaluator.with_chunk(best.chunk_tokens).assess(best.seats)


def _search(space: SearchSpace, settings: SearchSettings, watch: _Watch) -> Layout:
    starts = space.starts()[: settings.starts]
    # The first start counts as it is, should climbing take all the time.
    climbed = map(space.climbed, takewhile(watch.goes_on, starts))
    return tabu_search(
        max(chain(starts[:1], climbed), key=watch.score),
        space.neighbours,
        watch.score,
        width=settings.neighbours,
        tenure=settings.tenure,
        leash=settings.leash,
        patience=settings.patience,
        enough=watch.enough,
    )


class _Deadline:
    """When the time budget is spent; whoever asked and found it so was cut short."""

    def __init__(self, time_budget_s: float, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._began_s = clock()
        self._budget_s = time_budget_s
        self.cut_short = False

    def passed(self) -> bool:
        """True when it is over."""
        self.cut_short = self.cut_short or self.elapsed_s() >= self._budget_s
        return self.cut_short

    def elapsed_s(self) -> float:
        """Since the search began."""
        return self._clock() - self._began_s


class _Watch:
    """Looks at what the search spends and finds."""

    def __init__(self, space: SearchSpace, settings: SearchSettings, deadline: _Deadline) -> None:
        self._space = space
        self._most = settings.evaluations
        self._deadline = deadline
        self._spent = False
        self._progress: list[tuple[int, float]] = []

    def score(self, state: Layout) -> float:
        """The state's score; the best so far are remembered."""
        score = self._space.score(state)
        if not self._progress or score > self._progress[-1][1]:
            self._progress.append((self._space.evaluator.flows_solved, score))
        return score

    def enough(self) -> bool:
        """True when time or evaluations are spent."""
        self._spent = self._spent or self._space.evaluator.flows_solved >= self._most
        return self._spent or self._deadline.passed()

    def goes_on(self, _: object) -> bool:
        """False when that is so."""
        return not self.enough()

    def report(self, score: float) -> SearchReport:
        """How it went."""
        if self._deadline.cut_short:
            ending = Ending.TIME
        else:
            ending = Ending.EVALUATIONS if self._spent else Ending.PATIENCE
        return SearchReport(
            ending,
            score,
            self._space.evaluator.flows_solved,
            self._deadline.elapsed_s(),
            tuple(self._progress),
        )
