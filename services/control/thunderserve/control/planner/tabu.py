"""Tabu search: go to the best neighbour, even downhill, but never where one was lately."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable, Iterable
from itertools import islice
from typing import TypeVar

__all__ = ["tabu_search"]

_State = TypeVar("_State", bound=Hashable)


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
        leash: Iterations without a better state after which it goes on from the best again.
        patience: Iterations without a better state after which the search ends.
        enough: Ends it early.

    Source: ThunderServe (MLSys 2025), upper level; Glover, "Tabu Search" (1989).
    """
    best = current = start
    tabu = deque([start], maxlen=tenure)
    stale = 0
    while stale < patience and not enough():
        stale += 1
        free = (s for s in neighbours(current) if s not in tabu or score(s) > score(best))
        allowed = list(islice(free, width))
        if not allowed:
            continue
        current = max(allowed, key=score)
        tabu.append(current)
        if score(current) > score(best):
            best, stale = current, 0
        elif stale % leash == 0:
            current = best
    return best
