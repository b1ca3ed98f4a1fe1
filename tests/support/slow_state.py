"""What the slow simulator keeps of requests and groups."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from slow_world import Bell

from thunderserve.core.cost import Replica, Work
from thunderserve.core.plan import Group
from thunderserve.core.trace import TracedRequest


@dataclass(eq=False)
class Asked:
    """A request, the groups that serve it, and how far it has come."""

    request: TracedRequest
    prefill: Place
    decode: Place
    started: int = 0
    computed: int = 0
    sent: int = 0
    decoded: int = 0
    parts_there: int = 0
    reserved: bool = False
    first_s: float = math.inf
    last_s: float = math.inf

    @property
    def total(self) -> int:
        return self.request.prompt_tokens + self.request.output_tokens

    @property
    def context(self) -> int:
        return self.request.prompt_tokens + 1 + self.decoded

    @property
    def complete(self) -> bool:
        return self.decoded == self.request.output_tokens - 1


@dataclass(eq=False)
class Place:
    """A group."""

    group: Group
    replica: Replica
    capacity: int
    used: int = 0
    queue: list[Asked] = field(default_factory=list)
    unreserved: list[Asked] = field(default_factory=list)
    ready: list[Asked] = field(default_factory=list)
    running: list[Asked] = field(default_factory=list)
    stage_free_s: dict[int, float] = field(default_factory=dict)
    bell: Bell = field(default_factory=Bell)

    @property
    def mean_context(self) -> float:
        return sum(asked.context for asked in self.running) / len(self.running)

    def take(self, tokens: int) -> bool:
        taken = self.used + tokens <= self.capacity
        self.used += tokens * taken
        return taken


@dataclass(frozen=True)
class Piece:
    """Tokens of a prompt after those that were started before."""

    asked: Asked
    tokens: int
    past: int


def work_of(pieces: list[Piece]) -> Work:
    return sum((Work.of_prompt(p.tokens, p.past) for p in pieces), start=Work(0, 0))
