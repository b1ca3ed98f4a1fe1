"""Tabu search leaves a local optimum, and stops when it is told to."""

from __future__ import annotations

from thunderserve.control.planner.search.tabu import tabu_search

# A valley between the start's hill and a higher one.
HEIGHTS = (5.0, 3.0, 1.0, 2.0, 4.0, 9.0, 0.0)


def neighbours(at: int) -> list[int]:
    return [place for place in (at - 1, at + 1) if 0 <= place < len(HEIGHTS)]


def test_search_crosses_a_valley() -> None:
    found = tabu_search(
        0,
        neighbours,
        HEIGHTS.__getitem__,
        width=9,
        leash=5,
        tenure=4,
        patience=30,
        enough=lambda: False,
    )
    assert found == 5


def test_search_returns_to_where_it_was_when_nothing_is_tabu_for_long() -> None:
    """With a memory of one state it oscillates at the foot of its hill."""
    found = tabu_search(
        0,
        neighbours,
        HEIGHTS.__getitem__,
        width=9,
        leash=99,
        tenure=1,
        patience=20,
        enough=lambda: False,
    )
    assert found == 0


def test_search_ends_when_out_of_time() -> None:
    calls = iter([False, False, True])
    visited: list[int] = []

    def score(at: int) -> float:
        visited.append(at)
        return HEIGHTS[at]

    tabu_search(
        0, neighbours, score, width=9, leash=99, tenure=9, patience=99, enough=lambda: next(calls)
    )
    assert max(visited) == 1


def test_search_scores_no_more_neighbours_when_time_is_over_between_two() -> None:
    calls = iter([False, False, False, True, True])
    scored: set[int] = set()

    def score(at: int) -> float:
        scored.add(at)
        return float(at)

    found = tabu_search(
        0,
        lambda _: [1, 2, 3, 4],
        score,
        width=9,
        leash=9,
        tenure=9,
        patience=9,
        enough=lambda: next(calls),
    )
    assert scored == {0, 1, 2}
    assert found == 2


def test_search_ends_when_every_neighbour_is_tabu() -> None:
    found = tabu_search(
        0,
        lambda _: [0],
        HEIGHTS.__getitem__,
        width=9,
        leash=99,
        tenure=3,
        patience=5,
        enough=lambda: False,
    )
    assert found == 0


def test_aspiration_admits_a_tabu_state_that_beats_the_best() -> None:
    """State 1 is forbidden after a walk there; once it is worth more, it is taken again."""
    worth = {0: 1.0, 1: 0.5, 2: 0.4}
    path: list[int] = []

    def around(at: int) -> list[int]:
        path.append(at)
        if len(path) == 6:
            worth[1] = 2.0
        return [1, 2] if at == 0 else [0, 1, 2]

    found = tabu_search(
        0,
        around,
        worth.__getitem__,
        width=9,
        leash=1,
        tenure=9,
        patience=12,
        enough=lambda: False,
    )
    assert 1 in path
    assert found == 1


def test_search_scores_only_the_most_promising() -> None:
    scored: set[int] = set()

    def score(at: int) -> float:
        scored.add(at)
        return -float(at)

    calls = iter([False, False, False, True])
    tabu_search(
        0,
        lambda _: [1, 2, 3, 4],
        score,
        width=2,
        leash=99,
        tenure=9,
        patience=9,
        enough=lambda: next(calls),
    )
    assert scored == {0, 1, 2}


def test_search_returns_to_the_best_at_the_end_of_its_leash() -> None:
    """From 0 a slope leads down to the left without end; the way up begins at 0 again."""

    def around(at: int) -> list[int]:
        return [-1, 1] if at == 0 else [at - 1 if at < 0 else at + 1]

    worth = {0: 5.0, 1: 2.0, 2: 3.0, 3: 9.0}
    found = [
        tabu_search(
            0,
            around,
            lambda at: worth.get(at, 4.0),
            width=9,
            tenure=99,
            leash=leash,
            patience=40,
            enough=lambda: False,
        )
        for leash in (4, 99)
    ]
    assert found == [3, 0]
