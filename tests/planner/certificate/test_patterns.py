"""Full packings of a node."""

from __future__ import annotations

from typing import TYPE_CHECKING

from thunderserve.control.planner.certificate import patterns
from thunderserve.control.planner.certificate.patterns import patterns_of

if TYPE_CHECKING:
    import pytest


def test_patterns_are_the_partitions_when_every_size_is_a_group() -> None:
    """Seven ways to write 5 as a sum."""
    assert len(patterns_of((5,), [(n,) for n in range(1, 6)]) or ()) == 7


def test_patterns_leave_no_room_for_another_group() -> None:
    found = patterns_of((4, 1), [(3, 0), (2, 0), (2, 1)])
    assert found is not None
    assert set(found) == {
        (((3, 0), 1),),
        (((2, 0), 2),),
        (((2, 0), 1), ((2, 1), 1)),
    }


def test_patterns_are_one_empty_cut_when_no_group_fits() -> None:
    assert patterns_of((2,), [(3,)]) == ((),)
    assert patterns_of((2,), []) == ((),)


def test_patterns_give_up_when_there_are_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    """Eleven ways to write 6 as a sum."""
    sizes = [(n,) for n in range(1, 7)]
    monkeypatch.setattr(patterns, "MOST_PATTERNS", 10)
    assert patterns_of((6,), sizes) is None
    monkeypatch.setattr(patterns, "MOST_PATTERNS", 11)
    assert len(patterns_of((6,), sizes) or ()) == 11
