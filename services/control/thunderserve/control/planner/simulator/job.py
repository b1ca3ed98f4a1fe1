"""One request on its way through the fleet, and what has become of all of them."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

__all__ = ["Job", "OnChunk", "Records"]

OnChunk = Callable[[float, "Job", int], None]


@dataclass(slots=True, eq=False)
class Job:
    """A request; groups change it as it moves on.

    Attributes:
        computed_tokens: Of its prompt, in passes that have started.
        unsent_tokens: Computed, and held back because decode has set no memory aside yet.
        sent_tokens: Whose KV cache is on its way, or there.
        parts_left: Of its last chunk, that have not arrived.
        reserved: Decode has set memory aside.
        on_chunk: Told the moment, the request and the tokens of every chunk that is computed.
    """

    index: int
    prompt_tokens: int
    output_tokens: int
    computed_tokens: int = 0
    unsent_tokens: int = 0
    sent_tokens: int = 0
    parts_left: int = 0
    reserved: bool = False
    on_chunk: OnChunk | None = None

    @property
    def total_tokens(self) -> int:
        """Whose KV cache it holds in the end."""
        return self.prompt_tokens + self.output_tokens


@dataclass(slots=True)
class Records:
    """When every request had its first token and its last; infinity until then."""

    count: int
    first_s: list[float] = field(init=False)
    last_s: list[float] = field(init=False)

    def __post_init__(self) -> None:
        self.first_s = [math.inf] * self.count
        self.last_s = [math.inf] * self.count

    def first_token(self, job: Job, now_s: float) -> None:
        """The prompt is computed; an answer of one token ends with it."""
        self.first_s[job.index] = now_s
        if job.output_tokens == 1:
            self.last_s[job.index] = now_s

    def last_token(self, job: Job, now_s: float) -> None:
        """The answer is complete."""
        self.last_s[job.index] = now_s
