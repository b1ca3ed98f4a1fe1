"""A workload's requests as arrays, so that a group prices all of them at once."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from collections.abc import Sequence

    from thunderserve.core.workload import Workload

__all__ = ["FloatArray", "Sample"]

FloatArray = npt.NDArray[np.float64]

_MOST = 256
_SLICES = 16


@dataclass(frozen=True, eq=False)
class Sample:
    """Requests that stand for a workload's.

    Attributes:
        prompt: Tokens, one value for each request.
        steps: Decode steps: answer tokens after the first.
        share: Of all requests; they sum to 1.
    """

    prompt: FloatArray
    steps: FloatArray
    share: FloatArray

    @classmethod
    def of(cls, workload: Workload) -> Sample:
        """The workload's pairs of lengths; when they are many, means of alike ones.

        Pairs are cut into slices of alike prompts, and those into cells of alike answers, so the
        means, and what prompts and answers have to do with each other, stay.
        """
        pairs = sorted(workload.requests)
        cells: list[Sequence[tuple[float, float]]] = [[pair] for pair in pairs]
        if len(pairs) > _MOST:
            cells = [
                cell
                for part in _cut(pairs)
                for cell in _cut(sorted(part, key=lambda pair: pair[1]))
            ]
        means = np.array([np.mean(cell, axis=0) for cell in cells])
        counts = np.array([len(cell) for cell in cells], dtype=np.float64)
        return cls(means[:, 0], np.maximum(0.0, means[:, 1] - 1), counts / counts.sum())

    @property
    def output(self) -> FloatArray:
        """Answer tokens."""
        return self.steps + 1

    @cached_property
    def mean_prompt(self) -> float:
        """Prompt tokens of a mean request."""
        return self.mean(self.prompt)

    @cached_property
    def mean_output(self) -> float:
        """Answer tokens of a mean request."""
        return self.mean(self.output)

    @cached_property
    def mean_steps(self) -> float:
        """Decode steps of a mean request, at least one."""
        return max(1.0, self.mean(self.steps))

    @cached_property
    def context(self) -> float:
        """Tokens that a decode step finds: long answers are seen more often than counted."""
        if not self.steps.any():
            return self.mean(self.prompt) + 1
        found = self.steps * (self.prompt + 1 + self.steps / 2)
        return self.mean(found) / self.mean(self.steps)

    @cached_property
    def resident_tokens(self) -> float:
        """Tokens of prompt and answer of the requests that decode at a moment."""
        weight = np.maximum(1.0, self.steps)
        return self.mean(weight * (self.prompt + self.output)) / self.mean(weight)

    def slots(self, room_tokens: float) -> float:
        """Requests that decode at once in memory that is set aside first come, first served.

        The next in line waits while less is free than it needs: on average half of what one takes,
        long ones weighing more. One always fits if a mean one does.
        """
        total = self.prompt + self.output
        unused = self.mean(total**2) / self.mean(total) / 2
        slots = (room_tokens - unused) / self.resident_tokens
        return max(1.0, slots) if room_tokens >= self.resident_tokens else 0.0

    def fits(self, room_tokens: float) -> FloatArray:
        """1 for requests that can be held at all, 0 for others."""
        return (self.prompt + self.output <= room_tokens).astype(np.float64)

    def mean(self, values: FloatArray) -> float:
        """Over all requests."""
        return float(values @ self.share)


def _cut(
    pairs: Sequence[tuple[float, float]],
) -> list[Sequence[tuple[float, float]]]:
    """At most so many slices, none empty."""
    slices = min(_SLICES, len(pairs))
    edges = [round(i * len(pairs) / slices) for i in range(slices + 1)]
    return [pairs[low:high] for low, high in pairwise(edges)]
