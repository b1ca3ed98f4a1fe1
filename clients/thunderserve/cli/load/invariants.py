"""What must be true of every history, whatever was broken meanwhile."""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from thunderserve.cli.load.history import Ending
from thunderserve.core.plan import WEIGHT_TOLERANCE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from thunderserve.cli.load.history import History, PlanSeen, RequestRecord

__all__ = ["Violation", "violations"]


@dataclass(frozen=True, slots=True)
class Violation:
    """A rule that a history breaks, and where.

    Rules: `ends-once`, `token-exact`, `complete`, `epochs-rise`, `weights-sum`.
    """

    rule: str
    where: str
    reason: str


def violations(
    history: History, expected: Callable[[Sequence[int], int], list[int]]
) -> tuple[Violation, ...]:
    """Everything that is wrong with a history; nothing when all promises were kept.

    Args:
        history: Of a run that is over.
        expected: The first so many tokens that follow a prompt.
    """
    found = [each for record in history.requests for each in _of_request(record, expected)]
    return (*found, *_of_plans(history.plans))


def _of_request(
    record: RequestRecord, expected: Callable[[Sequence[int], int], list[int]]
) -> Iterator[Violation]:
    where = f"request {record.number}"
    if len(record.endings) != 1:
        ends = ", ".join(ending for _, ending in record.endings) or "never"
        yield Violation("ends-once", where, f"{where} ended: {ends}")
    wanted = expected(record.prompt, len(record.tokens))
    for place, (token, right) in enumerate(zip(record.tokens, wanted, strict=True)):
        if token != right:
            reason = f"{where}: token {place} is {token}, not {right}"
            yield Violation("token-exact", where, reason)
            break
    if record.ending is Ending.FINISHED and record.token_count != record.output_tokens:
        reason = f"{where} finished with {record.token_count} tokens of {record.output_tokens}"
        yield Violation("complete", where, reason)


def _of_plans(plans: Sequence[PlanSeen]) -> Iterator[Violation]:
    highest: defaultdict[str, int] = defaultdict(int)
    for plan in plans:
        if plan.epoch < highest[plan.observer]:
            reason = f"{plan.observer} went from epoch {highest[plan.observer]} to {plan.epoch}"
            yield Violation("epochs-rise", plan.observer, reason)
        highest[plan.observer] = max(highest[plan.observer], plan.epoch)
        if plan.weights and abs(math.fsum(plan.weights) - 1) > WEIGHT_TOLERANCE:
            reason = f"epoch {plan.epoch}: weights sum to {math.fsum(plan.weights)}"
            yield Violation("weights-sum", plan.observer, reason)
