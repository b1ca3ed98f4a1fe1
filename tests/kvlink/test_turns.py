"""Whose turn it is: shares, urgency, and that nobody is left out."""

from __future__ import annotations

from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from thunderserve.kvlink.protocol import Backlog
from thunderserve.kvlink.protocol.turns import Turns, Waiting

MIB = 1024 * 1024
SIZES = st.integers(64 * 1024, 4 * MIB)  # of a kind: a turn of 4 MiB is a million of 4 bytes


def take_all(backlog: Backlog[str]) -> list[tuple[int, str]]:
    """Every item in the order in which it is handed out, one under way at a time."""
    order = []
    while (taken := backlog.take()) is not None:
        order.append(taken)
        backlog.done(taken[0])
    return order


@settings(max_examples=200, deadline=None)
@given(sizes=st.lists(SIZES, min_size=2, max_size=6), turns=st.integers(10, 200))
def test_turns_share_alike_when_no_room_is_urgent(sizes: list[int], turns: int) -> None:
    """Rooms that always have something to send are never further apart than a block of each."""
    rooms = [Waiting(number, size, 10**12, urgent=False) for number, size in enumerate(sizes)]
    served, link = Counter[int](), Turns()

    for _ in range(turns):
        chosen = link.choose(rooms)
        served[chosen.room] += chosen.next_bytes
        for one in rooms:
            for other in rooms:
                ahead = served[one.room] - served[other.room]
                assert ahead <= one.next_bytes + other.next_bytes


@settings(max_examples=200, deadline=None)
@given(
    first=st.integers(1, 50),
    size=SIZES,
    others=st.lists(st.tuples(SIZES, st.booleans()), min_size=1, max_size=8),
)
def test_turns_starve_no_room_when_others_are_urgent_and_short(
    first: int, size: int, others: list[tuple[int, bool]]
) -> None:
    """A quarter of the bytes is dealt to all alike, whatever else comes and however often."""
    starved = Waiting(0, size, 10**12, urgent=False)
    rooms = [Waiting(n + 1, each, each, urgent) for n, (each, urgent) in enumerate(others)]
    link, sent_bytes = Turns(), 0
    for _ in range(first):
        link.choose(rooms)

    while (chosen := link.choose([*rooms, starved])) is not starved:
        sent_bytes += chosen.next_bytes

        # Its turn comes when the others have had a block more than it, of a quarter.
        most = max(each for each, _ in others)
        assert sent_bytes <= 4 * (len(rooms) + 1) * (most + size) + 4 * most


def test_turns_favour_the_room_with_least_left_when_decode_waits_for_it() -> None:
    """Three quarters of the bytes go to whoever is nearest to its end."""
    long = Waiting(1, MIB, 500 * MIB, urgent=True)
    short = Waiting(2, MIB, 3 * MIB, urgent=True)
    early = Waiting(3, MIB, MIB, urgent=False)
    link = Turns()

    served = Counter(link.choose([long, short, early]).room for _ in range(400))

    assert served[2] >= 300
    assert served[1] >= 30
    assert served[3] >= 30


def test_turns_begin_level_when_a_room_comes_late() -> None:
    """A newcomer neither waits for what the others had before, nor takes it all back."""
    old, new = Waiting(1, MIB, 10**12, urgent=False), Waiting(2, MIB, 10**12, urgent=False)
    link = Turns()
    for _ in range(1000):
        link.choose([old])

    order = [link.choose([old, new]).room for _ in range(20)]

    assert Counter(order) == {1: 10, 2: 10}


def test_backlog_lets_a_short_room_pass_when_a_long_one_is_under_way() -> None:
    """Two turns after it came, whatever the long one has queued."""
    backlog: Backlog[str] = Backlog()
    for number in range(1000):
        backlog.add(1, f"long {number}", 4 * MIB)
    backlog.hurry(1)
    for _ in range(10):
        backlog.take()

    backlog.add(2, "short", MIB)
    backlog.hurry(2)
    backlog.end(2, "end")

    assert "end" in [item for _, item in take_all(backlog)[:4]]


def test_backlog_keeps_the_end_back_when_something_is_under_way() -> None:
    """The last item of a room goes when all others have been sent."""
    backlog: Backlog[str] = Backlog()
    backlog.add(1, "a", 10)
    backlog.add(1, "b", 10)
    backlog.end(1, "end")
    assert [backlog.take(), backlog.take()] == [(1, "a"), (1, "b")]
    assert backlog.take() is None

    backlog.done(1)
    assert backlog.take() is None
    backlog.done(1)

    assert backlog.take() == (1, "end")
    assert backlog.take() is None


def test_backlog_passes_rooms_over_when_they_are_not_allowed() -> None:
    """Others go on; the room keeps its place."""
    backlog: Backlog[str] = Backlog()
    backlog.add(1, "a", 10)
    backlog.add(2, "b", 10)

    assert backlog.take(lambda room: room == 2) == (2, "b")
    assert backlog.take(lambda room: room == 2) is None
    assert backlog.take() == (1, "a")


def test_backlog_returns_what_waits_when_a_room_is_dropped() -> None:
    """Whoever lent something to an item can have it back."""
    backlog: Backlog[str] = Backlog()
    backlog.add(1, "a", 10)
    backlog.add(1, "b", 10)
    backlog.take()

    assert backlog.drop(1) == ["b"]

    backlog.done(1)
    assert backlog.take() is None
