"""What one pass over waiting prompts computes: pieces of them, first come, first served."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from thunderserve.control.planner.simulator.job import Job
from thunderserve.core.cost import Work

if TYPE_CHECKING:
    from collections import deque
    from collections.abc import Callable


__all__ = ["Pass", "take"]


@dataclass(frozen=True, slots=True)
class Pass:
    """Pieces of prompts, computed together.

    Attributes:
        pieces: (request, tokens, whether they are its last).
    """

    pieces: tuple[tuple[Job, int, bool], ...]
    work: Work


def take(
    waiting: deque[Job], budget_tokens: int, *, whole: bool, admit: Callable[[Job], bool]
) -> Pass | None:
    """Take the next pass off the queue; None when nothing can start.

    Several short prompts share a pass, as in SGLang: weights are read once for all of them.

    Args:
        waiting: Prompts, the oldest first; finished ones are removed.
        budget_tokens: What the pass may hold.
        whole: Never cut a prompt; one beyond the budget gets a pass of its own.
        admit: Sets memory aside for a prompt that starts; False when there is none.
    """
    pieces: list[tuple[Job, int, bool]] = []
    work: Work | None = None
    left = budget_tokens
    while waiting and left > 0:
        job = waiting[0]
        needed = job.prompt_tokens - job.computed_tokens
        if whole and pieces and needed > left:
            break
        if job.computed_tokens == 0 and not admit(job):
            break
        count = needed if whole else min(needed, left)
        piece = Work.of_prompt(count, job.computed_tokens)
        work = piece if work is None else work + piece
        job.computed_tokens += count
        left -= count
        pieces.append((job, count, count == needed))
        if count == needed:
            waiting.popleft()
    return None if work is None else Pass(tuple(pieces), work)
