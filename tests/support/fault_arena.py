"""Two sidecars with a bad network between them, and what must hold whatever it does."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from fault_proxy import Fault, FaultProxy
from identities import SERVER_NAME, bulk_context, issue
from kvlink_sides import Side, free_port, random_cache, start_side

from thunderserve.core.kv import KvLayout
from thunderserve.core.plan import Phase
from thunderserve.core.request import WireMode

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


__all__ = [
    "SMALL",
    "Arena",
    "Outcome",
    "batches",
    "close_arena",
    "descriptors",
    "open_arena",
]

# Small enough to try every byte of a transfer.
SMALL = KvLayout("small", 1, 1, 16, 4, "bfloat16")
PAGES = 3
_MANY = 1 << 20
AUX = b"first token"


@dataclass(frozen=True)
class Outcome:
    """How one transfer ended on both sides: `committed`, or why not."""

    prefill: str
    decode: str
    exact: bool

    @property
    def holds(self) -> bool:
        """The invariant: exact, or failed with a reason; never committed with other bytes."""
        if self.decode == "committed":
            return self.exact and bool(self.prefill)
        return self.prefill != "committed" and bool(self.decode) and bool(self.prefill)


@dataclass
class Arena:
    """The prefill side's bulk connections pass the proxy."""

    prefill: Side
    decode: Side
    proxy: FaultProxy
    layout: KvLayout
    cache: np.ndarray
    int4_cache: np.ndarray
    baseline: int = 0  # descriptors of this process when nothing goes on
    rooms: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    async def offer(self, mode: WireMode) -> int:
        """A room that both sides have ready."""
        room = next(self.rooms)
        await self.prefill.worker.announce(room, mode)
        self.decode.engine.expect(room, self.cache.shape[2])
        self.decode.client.reserve(room, self.prefill.config.address, self.cache.shape[2])
        await self.prefill.engine.wait_reserved(room)
        return room

    async def transfer(self, mode: WireMode) -> Outcome:
        """One whole transfer, however it ends."""
        room = await self.offer(mode)
        await asyncio.to_thread(self._send, room)
        return await self.outcome(room, mode)

    async def outcome(self, room: int, mode: WireMode) -> Outcome:
        """Wait for both sides; forget the room."""
        received = await self.decode.engine.wait_ended(room)
        sent = await self.prefill.engine.wait_ended(room)
        arrived = self.decode.engine.caches.pop(room)
        exact = self.decode.engine.aux.pop(room, b"") == AUX and self._same(arrived, mode)
        return Outcome(sent, received, exact)

    async def suffer(self, faults: Sequence[Fault], mode: WireMode) -> list[Outcome]:
        """A transfer for each fault, all at once; checks the invariant."""
        await self.proxy.reset()  # no connection is left from before
        self.proxy.expect(faults)
        outcomes = await asyncio.gather(*(self.transfer(mode) for _ in faults))
        for fault, outcome in zip(faults, outcomes, strict=True):
            assert outcome.holds, (fault, outcome)
        return list(outcomes)

    async def check_well(self) -> None:
        """As many transfers as may be open succeed at once: no room and no buffer was lost."""
        await self.proxy.reset()
        count = self.decode.config.max_rooms
        outcomes = await asyncio.gather(*(self.transfer(WireMode.RAW16) for _ in range(count)))
        assert {(each.prefill, each.decode) for each in outcomes} == {("committed", "committed")}
        assert all(each.exact for each in outcomes)
        await self.wait_baseline()

    async def wait_baseline(self) -> None:
        """Descriptors are as many as before; closed connections go with the loop's next turns."""
        await self.proxy.reset()
        async with asyncio.timeout(5):
            while descriptors() > self.baseline:  # noqa: ASYNC110 - nobody tells of a closed one
                await asyncio.sleep(0.01)

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """To the decode side, with a certificate of another sidecar."""
        host, _, port = self.decode.config.address.rpartition(":")
        return await asyncio.open_connection(
            host, int(port), ssl=bulk_context(), server_hostname=SERVER_NAME
        )

    def _send(self, room: int) -> None:
        client = self.prefill.client
        client.send_pages(room, 0, self.cache)
        client.send_aux(room, AUX)
        client.finish(room)

    def _same(self, arrived: np.ndarray, mode: WireMode) -> bool:
        return np.array_equal(arrived, self.cache if mode is WireMode.RAW16 else self.int4_cache)


async def open_arena(
    folder: Path, layout: KvLayout = SMALL, *, below_tls: bool = False, **settings: Any
) -> Arena:
    """Start both sides and the proxy; learns what int4 makes of the cache from one transfer."""
    settings = {"max_rooms": 48, **settings}
    prefill = await start_side(folder / "prefill", Phase.PREFILL, layout, **settings)
    own_port, proxy_port = free_port(), free_port()
    decode = await start_side(
        folder / "decode",
        Phase.DECODE,
        layout,
        address=f"127.0.0.1:{own_port}",
        advertised_address=f"127.0.0.1:{proxy_port}",
        **settings,
    )
    proxy = FaultProxy(own_port, None if below_tls else issue(folder / "proxy"))
    await proxy.listen(proxy_port)
    # Every transfer blocks a thread or two: more at once than the default executor has.
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(4 * settings["max_rooms"]))
    cache = random_cache(layout, PAGES)
    arena = Arena(prefill, decode, proxy, layout, cache, cache)
    room = await arena.offer(WireMode.INT4)
    await asyncio.to_thread(arena._send, room)
    assert await decode.engine.wait_ended(room) == "committed"
    assert await prefill.engine.wait_ended(room) == "committed"
    arena.int4_cache = decode.engine.caches.pop(room)
    arena.baseline = _MANY  # of the first healthy transfers, which open what stays open
    await arena.check_well()
    arena.baseline = descriptors()
    return arena


async def close_arena(arena: Arena) -> None:
    """Stop everything."""
    await arena.prefill.stop()
    await arena.decode.stop()
    await arena.proxy.close()


def descriptors() -> int:
    """Open descriptors of this process, where both sidecars live."""
    return len(list(Path("/proc/self/fd").iterdir()))


def batches(faults: Iterable[Fault], size: int = 48) -> Iterator[list[Fault]]:
    """As many at once as there may be rooms."""
    waiting = iter(faults)
    while batch := list(itertools.islice(waiting, size)):
        yield batch
