"""A workload that stands for a trace: its rate, its lengths, its bursts."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, TypeVar

from thunderserve.core.arrival_fit import fit_arrivals
from thunderserve.core.workload import POISSON, Workload

if TYPE_CHECKING:
    from collections.abc import Sequence

    from thunderserve.core.trace import Trace

__all__ = ["thin_pairs", "workload_of"]

_Item = TypeVar("_Item")
_PAIRS = 256
_GOLDEN = (5**0.5 - 1) / 2

Pair = tuple[float, float]


def workload_of(trace: Trace, *, bursts: bool = True) -> Workload:
    """The trace's mean rate, 256 of its lengths, and levels as bursty as it is.

    Args:
        trace: What was recorded.
        bursts: False makes arrivals a Poisson process of the same rate.
    """
    pairs = [(float(r.prompt_tokens), float(r.output_tokens)) for r in trace.requests]
    return Workload(
        trace.name,
        trace.rate_rps,
        thin_pairs(pairs, _PAIRS),
        fit_arrivals([r.arrival_s for r in trace.requests]) if bursts else POISSON,
    )


def thin_pairs(pairs: Sequence[Pair], number: int) -> tuple[Pair, ...]:
    """Fewer, equally likely pairs with the same means, quantiles and dependence.

    Prompts and answers are each cut into `number` equal parts, represented by their means. Which
    part of the answers goes with a part of the prompts is decided by one of the requests in that
    part of the prompts: low, high and middle answers in turn, by steps of the golden ratio. So each
    part is used once, and long prompts get the answers that long prompts had.
    """
    if len(pairs) <= number:
        return tuple(pairs)
    by_prompt = _parts(sorted(pairs), number)
    outputs = [sum(part) / len(part) for part in _parts(sorted(o for _, o in pairs), number)]
    chosen = []
    for index, part in enumerate(by_prompt):
        answers = sorted(output for _, output in part)
        chosen.append((answers[int((index * _GOLDEN + 0.5) % 1 * len(answers))], index))
    prompts = [sum(prompt for prompt, _ in part) / len(part) for part in by_prompt]
    ranked = zip(sorted(chosen), outputs, strict=True)
    return tuple(sorted((prompts[index], output) for (_, index), output in ranked))


def _parts(ordered: Sequence[_Item], number: int) -> list[Sequence[_Item]]:
    edges = [round(i * len(ordered) / number) for i in range(number + 1)]
    return [ordered[low:high] for low, high in pairwise(edges)]
