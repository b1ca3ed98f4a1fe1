"""What the next pass over waiting prompts computes: pieces of them, first come, first served."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from thunderserve.core.cost import Work
from thunderserve.engine.emulated.job import Job, Progress

if TYPE_CHECKING:
    from collections import deque
    from collections.abc import Iterator

__all__ = ["Pass", "next_pass"]


@dataclass(frozen=True, slots=True)
class Pass:
    """Pieces of prompts that are computed together: (request, tokens, whether its last)."""

    pieces: tuple[tuple[Job, int, bool], ...]
    work: Work

    def progress(self, at_s: float) -> Iterator[Progress]:
        """What is known when it has ended; a prompt's last piece gives the first token."""
        for job, tokens, last in self.pieces:
            job.produced_tokens += last
            yield Progress(job, at_s, tokens, int(last))


def next_pass(waiting: deque[Job], chunk_tokens: int, now_s: float) -> Pass | None:
    """Take the next pass off a queue; None when nobody waits.

    Short prompts share a pass and long ones take several, as in SGLang's chunked prefill.

    Args:
        waiting: Prompts in the order of coming; those computed whole are removed.
        chunk_tokens: What the pass may hold.
        now_s: Later ones have not come yet.
    """
    pieces: list[tuple[Job, int, bool]] = []
    work = Work(0, 0)
    left = chunk_tokens
    while waiting and left > 0 and waiting[0].ready_s <= now_s:
        job = waiting[0]
        needed = job.prompt_tokens - job.computed_tokens
        count = min(needed, left)
        work += Work.of_prompt(count, job.computed_tokens)
        job.computed_tokens += count
        left -= count
        pieces.append((job, count, count == needed))
        if count == needed:
            waiting.popleft()
    return Pass(tuple(pieces), work) if pieces else None
