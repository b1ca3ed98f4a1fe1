"""Slots of memory that an engine's rank and its sidecar share: KV values pass without a copy.

The sidecar makes the memory and seals its size, so that nobody can shrink it under the other's
reads, and passes its descriptor over the Unix socket. It has no name: it is gone when the last of
both is, however they end. A slot is in one hand at a time; which one, the messages say.
"""

from __future__ import annotations

import asyncio
import fcntl
import mmap
import os
from collections import deque

from thunderserve.kvlink.protocol.errors import FrameError
from thunderserve.kvlink.transport import StreamClosedError

__all__ = ["Lending", "SharedSlots", "SlotPool"]

_SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL


class SharedSlots:
    """One mapping of `slot_count` slots; freed with the last view of it.

    Args:
        descriptor: Of memory that `make` made; may be closed afterwards.
        slot_count: > 0.
        slot_bytes: What a slot holds.
    """

    def __init__(self, descriptor: int, slot_count: int, slot_bytes: int) -> None:
        self.slot_count = slot_count
        self.slot_bytes = slot_bytes
        # Page-aligned: a GPU's copy engine and the codec's widest stores want it.
        self._stride = -(-slot_bytes // mmap.PAGESIZE) * mmap.PAGESIZE
        self._memory = memoryview(mmap.mmap(descriptor, self._stride * slot_count))

    @classmethod
    def make(cls, slot_count: int, slot_bytes: int) -> tuple[SharedSlots, int]:
        """New memory, and its descriptor for the other process; the caller closes that."""
        stride = -(-slot_bytes // mmap.PAGESIZE) * mmap.PAGESIZE
        descriptor = os.memfd_create("kvlink-slots", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            os.ftruncate(descriptor, stride * slot_count)
            fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, _SEALS)
            return cls(descriptor, slot_count, slot_bytes), descriptor
        except BaseException:
            os.close(descriptor)
            raise

    def view(self, slot: int, size: int) -> memoryview:
        """The first `size` bytes of a slot; raises FrameError when it has not that many."""
        if not (0 <= slot < self.slot_count and 0 <= size <= self.slot_bytes):
            raise FrameError(
                f"{size} bytes of slot {slot}; there are {self.slot_count} slots of "
                f"{self.slot_bytes} bytes"
            )
        start = slot * self._stride
        return self._memory[start : start + size]


class Lending:
    """The slots that are in the other hand."""

    def __init__(self, slot_count: int) -> None:
        self._count = slot_count
        self._lent: set[int] = set()

    @property
    def free_count(self) -> int:
        """Slots that are here."""
        return self._count - len(self._lent)

    def lend(self, slot: int) -> None:
        """Give a slot away; raises FrameError when it is not here."""
        if not 0 <= slot < self._count or slot in self._lent:
            raise FrameError(f"slot {slot} of {self._count} is not there to be given")
        self._lent.add(slot)

    def take_back(self, slot: int) -> None:
        """Have it back; raises FrameError when it was not away."""
        if slot not in self._lent:
            raise FrameError(f"slot {slot} of {self._count} was not given away")
        self._lent.remove(slot)


class SlotPool:
    """Decode: the slots that the sidecar may fill for one rank; whoever finds none free waits."""

    def __init__(self, slot_count: int) -> None:
        self._lending = Lending(slot_count)
        self._free = list(range(slot_count))  # the last used first: it is in a cache
        self._waiting: deque[asyncio.Future[int]] = deque()
        self._closed = False

    async def take(self) -> int:
        """A free slot, in the order of asking; raises StreamClosedError when the rank is gone."""
        if self._closed:
            raise StreamClosedError("the engine is gone")
        if self._free:
            slot = self._free.pop()
        else:
            waiter: asyncio.Future[int] = asyncio.get_running_loop().create_future()
            self._waiting.append(waiter)
            slot = await self._granted(waiter)
        self._lending.lend(slot)
        return slot

    def give_back(self, slot: int) -> None:
        """The rank is done with it; raises FrameError when it had not been given it."""
        self._lending.take_back(slot)
        self._offer(slot)

    def close(self) -> None:
        """Nobody will give a slot back any more; whoever waits fails."""
        self._closed = True
        while self._waiting:
            waiter = self._waiting.popleft()
            if not waiter.done():
                waiter.set_exception(StreamClosedError("the engine is gone"))

    async def _granted(self, waiter: asyncio.Future[int]) -> int:
        try:
            return await waiter
        except asyncio.CancelledError:
            if waiter.done() and not waiter.cancelled() and waiter.exception() is None:
                self._offer(waiter.result())
            raise

    def _offer(self, slot: int) -> None:
        while self._waiting:
            waiter = self._waiting.popleft()
            if not waiter.done():
                waiter.set_result(slot)
                return
        self._free.append(slot)
