"""Every plan that there is for a few GPUs, one after another: what cleverer ways must equal."""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING

from thunderserve.control.planner.flow import Assessment, Evaluator, Seat
from thunderserve.control.planner.search import Bins, Counts, Parallelism

if TYPE_CHECKING:
    from collections.abc import Iterator

    from thunderserve.control.planner.problem import Problem

__all__ = ["every_plan"]


def every_plan(problem: Problem) -> Iterator[Assessment]:
    """Every partition of the GPUs, every phase, every design; parts that hold nothing stay idle."""
    evaluator, bins = Evaluator(problem), Bins(problem.cluster)
    parallelism = Parallelism(problem, evaluator.shapes, bins)
    for groups in _partitions(bins.sizes, bins.sizes):
        choices = [
            [
                (phase, design)
                for phase in problem.engine.phases
                for design in dict.fromkeys(parallelism.designs(counts))
            ]
            for counts in groups
        ]
        for chosen in product(*(each for each in choices if each)):
            yield evaluator.assess([Seat(f"g{i}", *each) for i, each in enumerate(chosen)])


def _partitions(counts: Counts, most: Counts) -> Iterator[tuple[Counts, ...]]:
    """Every way to cut the counts into groups, each no larger than `most` in order."""
    if not any(counts):
        yield ()
        return
    for group in product(*(range(count, -1, -1) for count in counts)):
        if any(group) and group <= most:
            left = tuple(count - taken for count, taken in zip(counts, group, strict=True))
            for rest in _partitions(left, group):
                yield (group, *rest)
