"""Workers that could not be reached a moment ago: avoided for a while, never banned."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from thunderserve.router.routing import Avoid

if TYPE_CHECKING:
    from collections.abc import Iterable

    from thunderserve.core.fleet import Worker

__all__ = ["Suspicion"]


@dataclass(slots=True)
class Suspicion:
    """Remembers unreachable processes for `period_s`; a restarted one is a new process."""

    period_s: float
    _until_s: dict[str, float] = field(default_factory=dict)

    def suspect(self, worker: Worker, now_s: float) -> None:
        """Avoid this process from now on, for a while."""
        self._until_s[worker.instance_id] = now_s + self.period_s

    def avoid(self, workers: Iterable[Worker], now_s: float) -> Avoid:
        """The groups of `workers` that are suspected now."""
        self._until_s = {i: until for i, until in self._until_s.items() if until > now_s}
        return Avoid(frozenset(w.group_id for w in workers if w.instance_id in self._until_s))
