"""Jobs as the dispatcher gets them, and their answers."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from thunderserve.core.request import SamplingParams, WireMode
from thunderserve.router.job import Job

if TYPE_CHECKING:
    from thunderserve.router.dispatch import Answer

PROMPT = (10, 11, 12)


def job(max_tokens: int = 6, *, timeout_s: float = 10.0, end: frozenset[int] = frozenset()) -> Job:
    """A greedy request for `max_tokens` tokens."""
    return Job(
        request_id="r",
        prompt_token_ids=PROMPT,
        sampling=SamplingParams(max_tokens=max_tokens),
        wire_mode=WireMode.RAW16,
        end_token_ids=end,
        arrived_s=time.monotonic(),
        deadline_s=time.monotonic() + timeout_s,
    )


async def tokens_of(answer: Answer) -> list[int]:
    """All tokens; the last chunk, and only that, has a finish reason."""
    chunks = [chunk async for chunk in answer.chunks()]
    assert [c.finish_reason is not None for c in chunks] == [False] * (len(chunks) - 1) + [True]
    return [token for chunk in chunks for token in chunk.token_ids]
