"""The sidecar's memory of rooms: bounded while open, and only for a while after the end."""

from __future__ import annotations

import pytest

from thunderserve.core.errors import NotFoundError, OverloadedError, TransferError
from thunderserve.core.kv import KvLayout
from thunderserve.core.request import WireMode
from thunderserve.kvlink.protocol import TransferState
from thunderserve.kvlink.rooms import Role, Rooms

LAYOUT = KvLayout("m", 1, 1, 8, 1, "bfloat16")


@pytest.fixture
def rooms() -> Rooms:
    return Rooms(default_mode=WireMode.INT4, max_rooms=2, open_limit_s=10, forget_after_s=5)


def test_room_takes_the_default_mode_when_none_was_announced(rooms: Rooms) -> None:
    """Announced before or after the reservation, the announcement wins."""
    reserved = rooms.reserve(1, Role.SENDING, LAYOUT, 3, 0.0)
    assert reserved.report.wire_mode is WireMode.INT4

    announced = rooms.announce(1, WireMode.RAW16, 0.0)
    assert announced is reserved
    assert (announced.wire_mode, announced.report.wire_mode) == (WireMode.RAW16,) * 2
    assert rooms.announce(2, WireMode.DEFAULT, 0.0).wire_mode is WireMode.INT4


def test_room_is_refused_when_too_many_are_open(rooms: Rooms) -> None:
    """An ended room gives its place back."""
    first = rooms.announce(1, WireMode.INT4, 0.0)
    rooms.announce(2, WireMode.INT4, 0.0)
    with pytest.raises(OverloadedError):
        rooms.announce(3, WireMode.INT4, 0.0)

    rooms.abort(first, "cancelled", 0.0)

    rooms.announce(3, WireMode.INT4, 0.0)


def test_room_is_reserved_once_when_asked_twice(rooms: Rooms) -> None:
    """A second decode side must not get the first one's pages."""
    rooms.reserve(1, Role.SENDING, LAYOUT, 3, 0.0)

    with pytest.raises(TransferError, match="reserved already"):
        rooms.reserve(1, Role.SENDING, LAYOUT, 3, 0.0)


def test_room_cannot_be_reserved_when_it_was_aborted_before(rooms: Rooms) -> None:
    """An abort that arrives first is remembered, with its reason."""
    rooms.bury(1, "cancelled", 0.0)

    with pytest.raises(TransferError, match="cancelled"):
        rooms.reserve(1, Role.SENDING, LAYOUT, 3, 1.0)
    assert rooms.get(1).state is TransferState.ABORTED


def test_room_is_forgotten_when_it_ended_long_ago(rooms: Rooms) -> None:
    """Memory does not grow with the requests served."""
    rooms.abort(rooms.announce(1, WireMode.INT4, 0.0), "cancelled", 1.0)

    rooms.overdue(6.0)
    assert rooms.get(1).failure == "cancelled"
    rooms.overdue(6.1)

    with pytest.raises(NotFoundError, match="room 1"):
        rooms.get(1)


def test_room_is_overdue_when_it_stays_open(rooms: Rooms) -> None:
    """The caller aborts it; until then it is told of again."""
    room = rooms.announce(1, WireMode.INT4, 0.0)

    assert rooms.overdue(10.0) == []
    assert rooms.overdue(10.1) == [room]
