"""Tabu search: go to the best neighbour, even downhill, but never where one was lately.

Neighbours are a sample, drawn anew each time, so looking again around the best state finds others;
it walks away from it only now and then.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable, Iterable
from itertools import islice, takewhile
from typing import TypeVar

__all__ = ["tabu_search"]

_State = TypeVar("_State", bound=Hashable)

_ROUND = 4
"""Leashes of one round: it looks around the best for all but the last of them, then walks."""


def tabu_search(
    start: _State,
    neighbours: Callable[[_State], Iterable[_State]],
    score: Callable[[_State], float],
    *,
    width: int,
    tenure: int,
    leash: int,
    patience: int,
    enough: Callable[[], bool],
) -> _State:
    """The best state that was found.

    Args:
        start: Where to begin.
        neighbours: States that one move makes, the most promising first.
        score: What to maximise; remembered by the caller, as states come back.
        width: How many of a state's neighbours are scored.
        tenure: How many of the last states are forbidden, unless they beat the best.
        leash: Steps away from the best before it returns; three times as often it stays there.
        patience: Iterations without a better state after which the search ends.
        enough: Ends it early; asked before every score, as one may take long.

    Source: ThunderServe (MLSys 2025), upper level; Glover, "Tabu Search" (1989).
    """
    best = current = start
    tabu = deque([start], maxlen=tenure)
    stale = 0
    while stale < patience and not enough():
        stale += 1
        around = islice(neighbours(current), width)
        allowed = (s for s in around if s not in tabu or score(s) > score(best))
        found = max(takewhile(lambda _: not enough(), allowed), key=score, default=best)
        if score(found) > score(best):
            best = current = found
            stale = 0
            tabu.append(found)
        elif stale % (_ROUND * leash) >= (_ROUND - 1) * leash:
            current = found
            tabu.append(found)
        else:
            current = best
    return best
