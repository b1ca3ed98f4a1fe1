"""Routes as the simulated router sees them: a way through one group, or through two."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Protocol

from thunderserve.control.planner.simulator.colocated import ColocatedGroup
from thunderserve.control.planner.simulator.decode import DecodeGroup
from thunderserve.control.planner.simulator.network import Path
from thunderserve.control.planner.simulator.policy import Reservation
from thunderserve.control.planner.simulator.prefill import PrefillGroup

if TYPE_CHECKING:
    from thunderserve.control.planner.simulator.job import Job

__all__ = ["ColocatedLane", "Lane", "SplitLane"]


class Lane(Protocol):
    """A way to serve a request."""

    @property
    def queue(self) -> tuple[int, int]:
        """Prompt tokens ahead in prefill, and tokens promised in decode."""

    def fits(self, job: Job) -> bool:
        """False when its groups could not hold the request even alone."""

    def accept(self, now_s: float, job: Job) -> None:
        """Serve a request that fits."""


@dataclass(frozen=True, slots=True)
class ColocatedLane:
    """Both phases in one group; nothing is sent."""

    group: ColocatedGroup

    @property
    def queue(self) -> tuple[int, int]:
        """Prompts and answers wait in the same place."""
        return self.group.queued_tokens, self.group.queued_tokens

    def fits(self, job: Job) -> bool:
        """False when the group could not hold prompt and answer."""
        return job.total_tokens <= self.group.memory.capacity_tokens

    def accept(self, now_s: float, job: Job) -> None:
        """Queue in the group."""
        self.group.queued_tokens += job.total_tokens
        self.group.enqueue(now_s, job)


@dataclass(frozen=True, slots=True)
class SplitLane:
    """Prefill in one group, decode in another, and the KV cache's path between them.

    Chunks leave as they are computed, once decode has set memory aside.
    """

    prefill: PrefillGroup
    decode: DecodeGroup
    path: Path
    reservation: Reservation

    @property
    def queue(self) -> tuple[int, int]:
        """Tokens of prompts not computed yet, and of all requests not complete yet."""
        return self.prefill.queued_tokens, self.decode.queued_tokens

    def fits(self, job: Job) -> bool:
        """False when either group could not hold its part."""
        return (
            job.prompt_tokens <= self.prefill.memory.capacity_tokens
            and job.total_tokens <= self.decode.memory.capacity_tokens
        )

    def accept(self, now_s: float, job: Job) -> None:
        """Send both legs at once."""
        self.prefill.queued_tokens += job.prompt_tokens
        self.decode.queued_tokens += job.total_tokens
        if self.reservation is Reservation.BEFORE_PREFILL:
            self.decode.reserve(now_s, job, partial(self._start, job))
        else:
            self._start(job, now_s)

    def _start(self, job: Job, now_s: float) -> None:
        self.prefill.enqueue(now_s, job, self._computed)

    def _computed(self, now_s: float, job: Job, tokens: int) -> None:
        """A chunk of the prompt is there to be sent."""
        first = not (job.sent_tokens or job.unsent_tokens)
        job.unsent_tokens += tokens
        if first and self.reservation is Reservation.BEFORE_TRANSFER:
            self.decode.reserve(now_s, job, partial(self._send, job))
        elif job.reserved:
            self._send(job, now_s)

    def _send(self, job: Job, now_s: float) -> None:
        tokens, job.unsent_tokens = job.unsent_tokens, 0
        job.sent_tokens += tokens
        if job.sent_tokens < job.prompt_tokens:
            self.path.send(now_s, tokens)
        else:
            job.parts_left = len(self.path.parts)
            self.path.send(now_s, tokens, partial(self._arrived, job))

    def _arrived(self, job: Job, now_s: float) -> None:
        """Parts arrive on their own; chunks of one part never overtake each other."""
        job.parts_left -= 1
        if job.parts_left == 0:
            self.prefill.release(now_s, job)
            self.decode.join(now_s, job)
