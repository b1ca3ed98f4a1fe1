"""Strategies scored on clusters, as many at once as there are cores."""

from __future__ import annotations

import sys
import time
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from multiprocessing import get_context
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import Progress

from thunderserve.cli.planning.inputs import read_cluster, read_problem, read_trace
from thunderserve.cli.planning.options import TraceOptions
from thunderserve.control.planner.problem import Objective
from thunderserve.control.planner.strategies import (
    Curves,
    Score,
    attainment_curves,
    score_strategy,
    strategies_for,
    strategy_named,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from concurrent.futures import Future

    from thunderserve.cli.planning.options import ProblemOptions
    from thunderserve.control.planner.problem import Problem

__all__ = ["OURS", "Comparison", "Result"]

OURS = "thunderserve"

_RATE_STEPS = 8
_HIGHEST_RATE_FACTOR = 1.4
_SLO_SCALES = (0.5, 0.75, 1.0, 1.25, 1.5, 2.0, 3.0)


@dataclass(frozen=True, slots=True)
class Result:
    """A strategy on a cluster."""

    cluster: str
    score: Score
    curves: Curves | None = None


class Comparison:
    """What is compared: problems by cluster, the same requests for all."""

    def __init__(
        self, given: ProblemOptions, strategies: str, against: str, *, requests: int, seed: int
    ) -> None:
        """Read the inputs.

        Raises:
            InvalidArgumentError: One of them is wrong.
        """
        clusters = {given.cluster: read_cluster(given)}
        if against:
            clusters[against] = read_cluster(replace(given, cluster=against))
        self.problems = {
            name: replace(read_problem(given, cluster=cluster), objective=Objective.CAPACITY)
            for name, cluster in clusters.items()
        }
        self.names = {name: _names(strategies, problem) for name, problem in self.problems.items()}
        self.requests = requests
        self._seed = seed
        self._trace = read_trace(given, TraceOptions(requests=requests), seed=seed)

    def run(self, *, curves: bool) -> list[Result]:
        """Score every strategy on every cluster, and draw their curves when asked."""
        jobs = [(cluster, name) for cluster, names in self.names.items() for name in names]
        # Forking a process whose threads hold locks, as gRPC's do, may hang the child for ever.
        fresh = get_context("spawn")
        with (
            ProcessPoolExecutor(mp_context=fresh) as pool,
            _progress(len(jobs) * (1 + curves)) as done,
        ):
            scored = [pool.submit(self.score, *job) for job in jobs]
            results = list(done(scored))
            if curves:
                best_rps = max(result.score.goodput_rps for result in results)
                drawn = [pool.submit(self.draw, result, best_rps) for result in results]
                results = list(done(drawn))
        return results

    def score(self, cluster: str, name: str) -> Result:
        """One strategy on one cluster."""
        problem = self.problems[cluster]
        score = score_strategy(name, problem, self._trace, seed=self._seed, clock=time.process_time)
        return Result(cluster, score)

    def draw(self, result: Result, best_rps: float) -> Result:
        """The same with its curves, on axes that suit the best."""
        problem = self.problems[result.cluster]
        highest_rps = _HIGHEST_RATE_FACTOR * best_rps
        curves = attainment_curves(
            result.score,
            problem,
            self._trace,
            rates_rps=[highest_rps * (i + 1) / _RATE_STEPS for i in range(_RATE_STEPS)],
            slo_scales=_SLO_SCALES,
            rate_rps=best_rps,
        )
        return replace(result, curves=curves)


def _names(chosen: str, problem: Problem) -> tuple[str, ...]:
    """The strategies to compare; ours is always one, as it is what the others are measured by."""
    known = strategies_for(problem)
    if not chosen:
        return known
    names = [strategy_named(name.strip()).name for name in chosen.split(",")]
    return tuple(dict.fromkeys(name for name in (OURS, *names) if name in known))


@contextmanager
def _progress(total: int) -> Iterator[Callable[[Sequence[Future[Result]]], Iterator[Result]]]:
    """A bar on a terminal, and what moves it: it hands out results as jobs end, in order."""
    console = Console(file=sys.stderr)
    with Progress(console=console, disable=not console.is_terminal, transient=True) as bar:
        task = bar.add_task("comparing", total=total)

        def done(jobs: Sequence[Future[Result]]) -> Iterator[Result]:
            for job in jobs:
                job.add_done_callback(lambda _: bar.advance(task))
            for job in jobs:
                yield job.result()

        yield done
