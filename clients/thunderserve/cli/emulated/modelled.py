"""A worker's sidecar in the worker's own process: caches are handed over in memory."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from thunderserve.core.kv_volume import wire_ratio
from thunderserve.core.request import TransferReport, WireMode
from thunderserve.engine.emulated import MemoryExchange, MemoryKvPort

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import numpy as np
    import numpy.typing as npt

    from thunderserve.core.links import LinkMeasurement

__all__ = ["ModelledSidecar"]

_MOST_ROOMS = 4096


@dataclass(slots=True)
class _Transfer:
    """One room, as its prefill side sees it."""

    mode: WireMode
    began_s: float = 0.0
    ended: asyncio.Future[TransferReport] = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )


class ModelledSidecar:
    """What a worker needs of a sidecar, without one: see `engine.worker.bootstrap.Sidecar`.

    It reports the bytes that engines handed over, and as wire bytes what the codec would make of
    them; the time that links take is the emulated network's.

    Args:
        exchange: Shared by all workers of the fleet.
        default_mode: Of rooms whose request does not say.
    """

    def __init__(self, exchange: MemoryExchange, default_mode: WireMode) -> None:
        self._exchange = exchange
        self._default_mode = default_mode
        self._transfers: OrderedDict[int, _Transfer] = OrderedDict()

    @contextlib.asynccontextmanager
    async def link(self, local_address: str) -> AsyncIterator[ModelledSidecar]:
        """Itself."""
        del local_address
        yield self

    def port(self, engine_socket: str) -> MemoryKvPort:
        """Send and receive KV bytes."""
        del engine_socket
        return _ReportingPort(self._exchange, self)

    async def announce(self, room: int, wire_mode: WireMode) -> None:
        """See `KvLink.announce`."""
        mode = self._default_mode if wire_mode is WireMode.DEFAULT else wire_mode
        self._transfers[room] = _Transfer(mode)
        while len(self._transfers) > _MOST_ROOMS:
            self._transfers.popitem(last=False)

    async def report(self, room: int) -> TransferReport:
        """See `KvLink.report`."""
        return await self._transfers[room].ended

    async def links(self) -> tuple[LinkMeasurement, ...]:
        """None: the emulated network is no link that could be measured."""
        return ()

    def begin(self, room: int) -> None:
        """The first byte was offered."""
        self._transfers[room].began_s = time.monotonic()

    def end(self, room: int, raw_bytes: int) -> None:
        """The last byte was taken."""
        transfer = self._transfers[room]
        wire_bytes = round(raw_bytes * wire_ratio(transfer.mode))
        seconds = time.monotonic() - transfer.began_s
        report = TransferReport(
            raw_bytes,
            wire_bytes,
            seconds,
            transfer.mode,
            exposed_s=seconds,  # an emulated engine sends when it has computed everything
            exposed_bytes=wire_bytes,
        )
        transfer.ended.set_result(report)


class _ReportingPort(MemoryKvPort):
    """Tells the sidecar what went through it."""

    def __init__(self, exchange: MemoryExchange, sidecar: ModelledSidecar) -> None:
        super().__init__(exchange)
        self._sidecar = sidecar

    async def send(self, room: int, values: npt.NDArray[np.uint16], aux: bytes) -> None:
        self._sidecar.begin(room)
        await super().send(room, values, aux)
        self._sidecar.end(room, values.nbytes)
