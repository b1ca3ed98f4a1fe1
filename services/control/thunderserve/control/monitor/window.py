"""The newest finished requests, as the monitor looks at them."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

from thunderserve.core.errors import InvalidArgumentError
from thunderserve.core.finished import FinishedRequest, Outcome

if TYPE_CHECKING:
    from collections.abc import Iterable

    from thunderserve.core.slo import Slo

__all__ = ["Observation", "View", "Window"]

_MOST_REQUESTS = 20_000


@dataclass(frozen=True, slots=True)
class Observation:
    """A finished request and when this process heard of it, by its own monotonic clock.

    Hosts' clocks may be hours apart, so what a router says of time is not used.
    """

    seen_s: float
    request: FinishedRequest

    @property
    def arrived_s(self) -> float:
        """When it came to its router, by this process's clock."""
        return self.seen_s - self.request.e2e_s


@dataclass(frozen=True, slots=True)
class View:
    """What was heard between two moments.

    Attributes:
        start_s: When listening began, or where the window does.
        end_s: Now.
        observed: Oldest first.
    """

    start_s: float
    end_s: float
    observed: tuple[Observation, ...]

    @property
    def span_s(self) -> float:
        """How long it is."""
        return self.end_s - self.start_s

    @property
    def served(self) -> tuple[Observation, ...]:
        """The requests that were answered to their end."""
        return tuple(each for each in self.observed if each.request.served)

    def ripe(self, ended_ratio: float) -> View:
        """The requests that arrived since it began, and long ago enough to have ended.

        Short requests end first. Of those that have just ended after a change, most are short ones,
        and as long as the fleet is too slow there are fewer of them than arrive.

        Args:
            ended_ratio: Of the requests that arrive at its end, about so many have ended.

        Returns:
            Served requests, in order of arrival; its span is not above 0 where none is ripe.
        """
        took_s = sorted(each.request.e2e_s for each in self.served)
        lag_s = took_s[math.ceil(ended_ratio * len(took_s)) - 1] if took_s else 0.0
        end_s = self.end_s - lag_s
        ripe = (each for each in self.served if self.start_s <= each.arrived_s <= end_s)
        return View(self.start_s, end_s, tuple(sorted(ripe, key=lambda each: each.arrived_s)))

    @property
    def failed_ratio(self) -> float:
        """Share of the requests that failed; 0 of none."""
        failed = sum(each.request.outcome == Outcome.FAILED for each in self.observed)
        return failed / len(self.observed) if self.observed else 0.0

    def attainment_ratio(self, slo: Slo) -> float | None:
        """Share of the requests that met every bound; None of none. Cancelled ones do not count."""
        ended = [e.request for e in self.observed if e.request.outcome != Outcome.CANCELLED]
        return sum(request.meets(slo) for request in ended) / len(ended) if ended else None


class Window:
    """What was heard in the last `span_s` seconds.

    Args:
        span_s: How long an observation is kept, > 0.
    """

    def __init__(self, span_s: float) -> None:
        if span_s <= 0:
            raise InvalidArgumentError(f"span_s is {span_s}; it must be > 0", param="span_s")
        self._span_s = span_s
        self._kept: deque[Observation] = deque(maxlen=_MOST_REQUESTS)
        self._since_s: float | None = None

    def add(self, requests: Iterable[FinishedRequest], now_s: float) -> None:
        """Take in what was just heard."""
        self._since_s = now_s if self._since_s is None else self._since_s
        self._kept.extend(Observation(now_s, request) for request in requests)

    def view(self, now_s: float) -> View:
        """The window as it is now."""
        start_s = max(now_s - self._span_s, now_s if self._since_s is None else self._since_s)
        while self._kept and self._kept[0].seen_s <= now_s - self._span_s:
            self._kept.popleft()
        return View(start_s, now_s, tuple(self._kept))

    def restart(self, now_s: float) -> None:
        """Forget all: what was heard says nothing of what comes after a change of the fleet."""
        self._kept.clear()
        self._since_s = now_s
