"""Tabu search leaves a local optimum, and stops when it is told to."""

from __future__ import annotations

from thunderserve.control.planner.tabu import tabu_search

# A valley between the start's hill and a higher one.
HEIGHTS = (5.0, 3.0, 1.0, 2.0, 4.0, 9.0, 0.0)


def neighbours(at: int) -> list[int]:
    return [place for place in (at - 1, at + 1) if 0 <= place < len(HEIGHTS)]


def test_search_crosses_a_valley() -> None:
    found = tabu_search(
        0, neighbours, HEIGHTS.__getitem__, tenure=4, patience=6, out_of_time=lambda: False
    )
    assert found == 5


def test_search_returns_to_where_it_was_when_nothing_is_tabu_for_long() -> None:
    """With a memory of one state it oscillates at the foot of its hill."""
    found = tabu_search(
        0, neighbours, HEIGHTS.__getitem__, tenure=1, patience=20, out_of_time=lambda: False
    )
    assert found == 0


def test_search_ends_when_out_of_time() -> None:
    calls = iter([False, False, True])
    visited: list[int] = []

    def score(at: int) -> float:
        visited.append(at)
        return HEIGHTS[at]

    tabu_search(0, neighbours, score, tenure=9, patience=99, out_of_time=lambda: next(calls))
    assert max(visited) == 2


def test_search_ends_when_every_neighbour_is_tabu() -> None:
    found = tabu_search(
        0, lambda _: [0], HEIGHTS.__getitem__, tenure=3, patience=5, out_of_time=lambda: False
    )
    assert found == 0


def test_aspiration_admits_a_tabu_state_that_beats_the_best() -> None:
    """State 1 is forbidden after its visit; once it is worth more, it is taken again."""
    worth = {0: 1.0, 1: 0.5, 2: 0.4}
    path: list[int] = []

    def around(at: int) -> list[int]:
        path.append(at)
        if len(path) == 3:
            worth[1] = 2.0
        return [1, 2] if at == 0 else [0, 1, 2]

    found = tabu_search(
        0, around, worth.__getitem__, tenure=9, patience=6, out_of_time=lambda: False
    )
    assert found == 1
