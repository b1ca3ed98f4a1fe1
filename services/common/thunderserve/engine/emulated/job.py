"""A request in the emulated engine's queues."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Job", "Progress"]


@dataclass(slots=True, eq=False)
class Job:
    """A request; the queue that holds it changes it.

    Attributes:
        ready_s: When it came to the queue.
        computed_tokens: Of its prompt, in passes that have started.
        produced_tokens: Of its answer.
    """

    prompt_tokens: int
    output_tokens: int
    ready_s: float = 0.0
    computed_tokens: int = 0
    produced_tokens: int = 0

    @property
    def total_tokens(self) -> int:
        """Whose KV cache it holds in the end."""
        return self.prompt_tokens + self.output_tokens


@dataclass(frozen=True, slots=True)
class Progress:
    """What became of a job.

    Attributes:
        at_s: When.
        computed_tokens: Of its prompt, newly computed.
        produced_tokens: Of its answer, new.
    """

    job: Job
    at_s: float
    computed_tokens: int = 0
    produced_tokens: int = 0
