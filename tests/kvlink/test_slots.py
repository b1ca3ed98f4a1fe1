"""Memory that an engine and its sidecar share."""

from __future__ import annotations

import asyncio
import os
import threading
from collections import Counter
from pathlib import Path

import pytest

from thunderserve.core.errors import TransferError
from thunderserve.kvlink.engine_slots import EngineSlots
from thunderserve.kvlink.protocol import FrameError
from thunderserve.kvlink.slots import Lending, SharedSlots, SlotPool
from thunderserve.kvlink.transport import StreamClosedError


@pytest.fixture
def mapping() -> tuple[SharedSlots, SharedSlots]:
    """Both processes' view of three slots of 5000 bytes."""
    mine, descriptor = SharedSlots.make(3, 5000)
    theirs = SharedSlots(descriptor, 3, 5000)
    os.close(descriptor)
    return mine, theirs


def test_slots_are_seen_by_both_when_either_writes(
    mapping: tuple[SharedSlots, SharedSlots],
) -> None:
    """What one writes into a slot, the other reads there, and nowhere else."""
    mine, theirs = mapping

    mine.view(1, 5000)[:] = b"x" * 5000
    theirs.view(2, 3)[:] = b"abc"

    assert theirs.view(1, 5000) == b"x" * 5000
    assert mine.view(2, 5) == b"abc\0\0"
    assert not any(mine.view(0, 5000))


@pytest.mark.parametrize(("slot", "size"), [(3, 1), (-1, 1), (0, 5001), (0, -1), (2**32 - 1, 1)])
def test_slot_is_refused_when_it_is_out_of_range(
    mapping: tuple[SharedSlots, SharedSlots], slot: int, size: int
) -> None:
    """Whatever the other process asks for."""
    with pytest.raises(FrameError, match="3 slots of 5000 bytes"):
        mapping[0].view(slot, size)


def test_memory_keeps_its_size_when_the_other_process_shrinks_it() -> None:
    """A read behind a file's end would kill the sidecar; the seal forbids to move that end."""
    slots, descriptor = SharedSlots.make(2, 4096)
    for size in (0, 4096, 3 * 4096):
        with pytest.raises(PermissionError):
            os.ftruncate(descriptor, size)
    os.close(descriptor)

    slots.view(1, 4096)[:] = b"y" * 4096


def descriptors() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def test_memory_is_freed_when_the_last_view_is_gone() -> None:
    """No descriptor stays behind, and there is no name to remove."""
    before = descriptors()
    slots, descriptor = SharedSlots.make(2, 4096)
    os.close(descriptor)
    view = slots.view(0, 10)
    assert descriptors() > before

    del slots, view

    assert descriptors() == before


def test_lending_refuses_when_a_slot_is_not_where_it_should_be() -> None:
    """A slot is in one hand at a time."""
    lending = Lending(2)
    lending.lend(1)

    for wrong in (1, 2, -1):
        with pytest.raises(FrameError, match="not there"):
            lending.lend(wrong)
    with pytest.raises(FrameError, match="not given away"):
        lending.take_back(0)
    assert lending.free_count == 1


async def test_pool_hands_slots_out_in_order_when_several_wait() -> None:
    """First come, first served; one that gives up on the way does not lose a slot."""
    pool = SlotPool(1)
    assert await pool.take() == 0
    waiting = [asyncio.create_task(pool.take()) for _ in range(3)]
    await asyncio.sleep(0)

    waiting[0].cancel()
    pool.give_back(0)
    waiting[1].cancel()  # it has been given the slot and does not know yet

    assert await waiting[2] == 0
    with pytest.raises(FrameError):
        pool.give_back(7)


async def test_pool_fails_whoever_waits_when_the_rank_is_gone() -> None:
    """Nobody will give a slot back any more."""
    pool = SlotPool(1)
    await pool.take()
    waiting = asyncio.create_task(pool.take())
    await asyncio.sleep(0)

    pool.close()

    with pytest.raises(StreamClosedError):
        await waiting
    with pytest.raises(StreamClosedError):
        await pool.take()


def test_engine_slots_leave_some_free_when_one_peer_takes_all_it_can() -> None:
    """One peer gets half of them, so the next one's first block never waits for a slow link."""
    slots = EngineSlots(8, lambda: None)

    def fill(peer: str) -> int:
        return sum(slots.try_take(peer) is not None for _ in range(8))

    assert Counter(slow=fill("slow"), other=fill("other"), third=fill("third")) == Counter(
        slow=4, other=2, third=1
    )
    assert not slots.has_one("slow")
    assert slots.has_one("fourth")


def test_engine_slots_wake_whoever_waits_when_one_comes_back_or_the_sidecar_goes() -> None:
    """A full sidecar is back-pressure, a lost one is an error."""
    freed = threading.Event()
    slots = EngineSlots(1, freed.set)
    first, taken = slots.take("peer"), []
    waiting = threading.Thread(target=lambda: taken.append(slots.take("peer")))
    waiting.start()

    slots.give_back(first)
    waiting.join(10)

    assert taken == [first]
    assert freed.is_set()
    slots.close()
    with pytest.raises(TransferError):
        slots.take("peer")
    assert slots.try_take("peer") is None
