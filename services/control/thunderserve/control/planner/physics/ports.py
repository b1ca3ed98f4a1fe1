"""What transfers wait for in ports that others use too."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from thunderserve.control.planner.physics.waiting import Levels, Waits
from thunderserve.control.planner.problem import Objective
from thunderserve.core.kv_volume import kv_wire_bytes

if TYPE_CHECKING:
    from thunderserve.control.planner.physics.passes import PromptTimes
    from thunderserve.control.planner.physics.sample import FloatArray, Sample
    from thunderserve.control.planner.problem import Problem

__all__ = ["Ports"]

_BUSY_PORT = np.linspace(0.1, 0.95, 35)
_WORTH = 0.5


class Ports:
    """Ports of one problem's nodes.

    Args:
        problem: The problem.
        sample: Its requests.
        levels: Of their arrivals.
        elsewhere: A guess at the groups that send.
    """

    def __init__(
        self, problem: Problem, sample: Sample, levels: Levels, elsewhere: PromptTimes
    ) -> None:
        self._problem = problem
        self._sample = sample
        self._levels = levels
        self._elsewhere = elsewhere
        self._ceilings: dict[float, float] = {}

    def waits(
        self, bytes_per_s: float, busy_ratio: FloatArray, times: PromptTimes | None = None
    ) -> Waits:
        """Waits for a port's turn when requests keep it busy to these shares.

        Args:
            bytes_per_s: Of the port.
            busy_ratio: Shares of its time.
            times: Of the group that sends. A request's chunks come one by one, so what it adds to
                the backlog lies between what piles up behind its last chunk and all of it.
        """
        each = kv_wire_bytes(self._problem.model, 1, self._problem.wire_mode) / bytes_per_s
        times = times or self._elsewhere
        prompt, mean = self._sample.prompt, self._sample.mean
        hidden = (times.latency_s - times.first_chunk_s) / each
        pile = np.minimum(prompt, np.maximum(times.last_tokens, prompt - hidden))
        mean_s = each * mean(prompt)
        square_s2 = each**2 * mean(pile * prompt + prompt**2) / 2
        return Waits.at(self._levels, busy_ratio, np.array(mean_s), np.array(square_s2))

    def ceiling(self, bytes_per_s: float) -> float:
        """Share of a port's bytes per second beyond which more requests in it help nobody.

        Of those that one port's transfer alone does not make late: while one more request puts
        another half of one in time, or for capacity while the target's share is. Steps may take
        half of their bound.
        """
        if bytes_per_s not in self._ceilings:
            self._ceilings[bytes_per_s] = self._compute_ceiling(bytes_per_s)
        return self._ceilings[bytes_per_s]

    def _compute_ceiling(self, bytes_per_s: float) -> float:
        problem, sample = self._problem, self._sample
        each = kv_wire_bytes(problem.model, 1, problem.wire_mode) / bytes_per_s
        exposed_s = each * self._elsewhere.last_tokens
        spare_s = sample.steps * problem.slo.tpot_s / 2 - exposed_s
        able = sample.share * ((spare_s >= 0) & (sample.steps > 0))
        if not able.any():
            return float(_BUSY_PORT[-1])
        late = self.waits(bytes_per_s, _BUSY_PORT).longer_than(spare_s)
        met = 1 - late @ able @ self._levels.request / able.sum()
        if problem.objective is Objective.CAPACITY:
            enough = met >= problem.target_ratio
            return float(_BUSY_PORT[enough][-1] if enough.any() else _BUSY_PORT[0])
        gains = np.diff(_BUSY_PORT * met) / np.diff(_BUSY_PORT)
        return float(_BUSY_PORT[np.argmax([*(gains < _WORTH), True])])
