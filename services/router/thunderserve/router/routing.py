"""Which pair of groups serves the next request: the plan's weights, matched from the first one.

Decisions only: plans, workers and exclusions come in, pairs go out.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from thunderserve.core.chairman import Claimant, choose
from thunderserve.core.errors import ConflictError
from thunderserve.core.fleet import Worker

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from thunderserve.core.plan import Plan

__all__ = ["Avoid", "Pair", "RouteCount", "RouteTable"]

Ends = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Pair:
    """The workers of one route, and the epoch that it belongs to."""

    prefill: Worker
    decode: Worker
    epoch: int

    @property
    def colocated(self) -> bool:
        """True when one group does both phases: nothing is transferred."""
        return self.prefill.group_id == self.decode.group_id

    @property
    def ends(self) -> Ends:
        """The ids of the two groups."""
        return self.prefill.group_id, self.decode.group_id


@dataclass(frozen=True, slots=True)
class Avoid:
    """Groups, and pairs of groups, that a draw must leave out."""

    groups: frozenset[str] = frozenset()
    pairs: frozenset[Ends] = frozenset()

    def __or__(self, other: Avoid) -> Avoid:
        return Avoid(self.groups | other.groups, self.pairs | other.pairs)

    def forbids(self, ends: Ends) -> bool:
        """True when the pair or one of its groups is to be left out."""
        return ends in self.pairs or not self.groups.isdisjoint(ends)


@dataclass(frozen=True, slots=True)
class RouteCount:
    """Requests sent through one route since the router started."""

    prefill: str
    decode: str
    dispatches: int


@dataclass(slots=True)
class RouteTable:
    """The routes of the newest plan, the live workers behind them, and what each is owed."""

    epoch: int = 0
    _entries: list[Claimant] = field(default_factory=list)
    _workers: dict[str, Worker] = field(default_factory=dict)
    _counts: dict[Ends, int] = field(default_factory=dict)

    def update(self, plan: Plan, workers: Iterable[Worker]) -> None:
        """Follow a plan; routes that stay keep what they are owed.

        Raises:
            ConflictError: The plan's epoch is lower than the present one; nothing was changed.
        """
        if plan.epoch < self.epoch:
            raise ConflictError(f"plan {plan.epoch} is older than plan {self.epoch}, in use now")
        owed = {entry.ends: entry.deficit for entry in self._entries}
        entries = [
            Claimant((route.prefill, route.decode), route.weight)
            for route in plan.routes
            if route.weight > 0
        ]
        for entry in entries:
            entry.deficit = owed.get(entry.ends, 0.0)
        _recentre(entries)
        self.epoch = plan.epoch
        self._entries = entries
        self._workers = {worker.group_id: worker for worker in workers}

    def draw(self, avoid: Avoid = Avoid()) -> Pair | None:
        """The next pair, or None when no live pair is left; every draw counts as a dispatch."""
        eligible = [entry for entry in self._live() if not avoid.forbids(entry.ends)]
        if not eligible:
            return None
        ends = choose(eligible).ends
        self._counts[ends] = self._counts.get(ends, 0) + 1
        return Pair(self._workers[ends[0]], self._workers[ends[1]], self.epoch)

    @property
    def ready(self) -> bool:
        """True when a live pair exists."""
        return bool(self._live())

    @property
    def workers(self) -> tuple[Worker, ...]:
        """The live workers of the plan."""
        return tuple(self._workers.values())

    def counts(self) -> tuple[RouteCount, ...]:
        """Dispatches of every route ever used, and zero for routes not used yet."""
        known = {entry.ends: 0 for entry in self._entries} | self._counts
        return tuple(RouteCount(*ends, count) for ends, count in sorted(known.items()))

    def _live(self) -> list[Claimant]:
        return [e for e in self._entries if all(end in self._workers for end in e.ends)]


def _recentre(entries: Sequence[Claimant]) -> None:
    """Share out what vanished routes were owed, by weight: deficits sum to zero again."""
    total = sum(entry.weight for entry in entries)
    surplus = sum(entry.deficit for entry in entries)
    for entry in entries:
        entry.deficit -= surplus * entry.weight / total
