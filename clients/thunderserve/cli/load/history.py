"""What happened to every request, and which plans were seen: the evidence that checks look at."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

from thunderserve.core.errors import OverloadedError
from thunderserve.core.request import GenerationReport

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from thunderserve.core.errors import ThunderServeError

__all__ = ["Ending", "History", "PlanSeen", "RequestRecord"]


class Ending(StrEnum):
    """How a request ended for its client.

    REFUSED: it was shed before it began, with a word when to come again. OPEN: it has not ended.
    """

    OPEN = "open"
    FINISHED = "finished"
    FAILED = "failed"
    REFUSED = "refused"
    GIVEN_UP = "given_up"


@dataclass(slots=True)
class RequestRecord:
    """One request; moments are seconds since the history began.

    Attributes:
        token_times_s: When each token of `tokens` came; by HTTP, each piece of text.
        counted_tokens: By HTTP, which shows text alone: how many the router says there were.
        endings: Every end that was told; a sound history has exactly one.
        report: The router's own account of a finished request.
    """

    number: int
    prompt: tuple[int, ...]
    output_tokens: int
    submitted_s: float
    tokens: list[int] = field(default_factory=list)
    token_times_s: list[float] = field(default_factory=list)
    endings: list[tuple[float, Ending]] = field(default_factory=list)
    counted_tokens: int = 0
    error: str = ""
    report: GenerationReport | None = None

    @property
    def token_count(self) -> int:
        """Tokens of the answer so far, as far as they are known."""
        return self.counted_tokens or len(self.tokens)

    @property
    def ending(self) -> Ending:
        """The first end that was told."""
        return self.endings[0][1] if self.endings else Ending.OPEN

    @property
    def first_token_s(self) -> float:
        """Infinity before it."""
        return self.token_times_s[0] if self.token_times_s else math.inf

    @property
    def ended_s(self) -> float:
        """Infinity before the end."""
        return self.endings[0][0] if self.endings else math.inf


@dataclass(frozen=True, slots=True)
class PlanSeen:
    """What an observer followed at a moment; it may have no routes, and then serves nobody."""

    observer: str
    at_s: float
    epoch: int
    weights: tuple[float, ...] | None = None


class History:
    """Records what clients and observers see.

    Args:
        clock: Seconds that never go back; emulated ones for an emulated fleet.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._began_s = clock()
        self.requests: list[RequestRecord] = []
        self.plans: list[PlanSeen] = []
        self.faults: list[tuple[float, str]] = []

    def now_s(self) -> float:
        """Seconds since it began."""
        return self._clock() - self._began_s

    def submit(self, prompt: tuple[int, ...], output_tokens: int) -> RequestRecord:
        """A request was sent."""
        record = RequestRecord(len(self.requests), prompt, output_tokens, self.now_s())
        self.requests.append(record)
        return record

    def note_tokens(self, record: RequestRecord, tokens: Sequence[int]) -> None:
        """Tokens came."""
        record.tokens += tokens
        record.token_times_s += [self.now_s()] * len(tokens)

    def note_end(self, record: RequestRecord, ending: Ending) -> None:
        """It ended."""
        record.endings.append((self.now_s(), ending))

    def note_failure(self, record: RequestRecord, error: ThunderServeError) -> None:
        """It ended with an error."""
        record.error = f"{type(error).__name__}: {error}"
        refused = isinstance(error, OverloadedError) and not record.tokens
        self.note_end(record, Ending.REFUSED if refused else Ending.FAILED)

    def note_plan(self, observer: str, epoch: int, weights: Sequence[float] | None = None) -> None:
        """An observer follows this epoch now; noted when it changes."""
        seen = tuple(weights) if weights is not None else None
        last = next((plan for plan in reversed(self.plans) if plan.observer == observer), None)
        if last is None or (last.epoch, last.weights) != (epoch, seen):
            self.plans.append(PlanSeen(observer, self.now_s(), epoch, seen))

    def note_fault(self, what: str) -> float:
        """Something was broken or mended; returns the moment."""
        self.faults.append((self.now_s(), what))
        return self.faults[-1][0]
