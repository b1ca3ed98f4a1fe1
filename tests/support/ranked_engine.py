"""Engines of several ranks without SGLang: each rank has a client and keeps what it was told."""

from __future__ import annotations

import asyncio
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kv_parts import parts_of

from thunderserve.core.kv import KvPart
from thunderserve.kvlink.engine_client import EngineClient
from thunderserve.kvlink.protocol import block_of_part

if TYPE_CHECKING:
    import numpy as np

    from thunderserve.core.kv import KvLayout
    from thunderserve.core.plan import Phase

__all__ = ["PAGES", "ROOM", "Rank", "RankedSide", "ranks_of"]

PAGES = 9
ROOM = 7


@dataclass
class Rank:
    """One rank of an engine: what it holds, its client and what it was told."""

    part: KvPart
    client: EngineClient
    told: Any

    def send(self, cache: np.ndarray, *, aux: bytes = b"aux") -> None:
        """Send what this rank holds of a whole cache, as the plugin does."""
        if not self.part.copy:
            whole = block_of_part(self.part, 0, cache.shape[2])
            self.client.send_pages(ROOM, 0, cache[whole.slices()])
        if self.part.rank == 0:
            self.client.send_aux(ROOM, aux)
        self.client.finish(ROOM)


@dataclass
class RankedSide:
    """A sidecar with an engine of several ranks."""

    side: Any
    ranks: list[Rank]

    async def outcomes(self) -> set[str]:
        """How the room ended, as the ranks were told."""
        ended = (rank.told.wait_ended(ROOM) for rank in self.ranks)
        return set(await asyncio.gather(*ended))

    def reserve(
        self, peer: RankedSide, page_count: int = PAGES, *, ranks: slice = slice(None)
    ) -> None:
        """Some ranks of a decode engine ask for the room."""
        for rank in self.ranks[ranks]:
            rank.told.expect(ROOM, page_count)
            rank.client.reserve(ROOM, peer.side.config.address, page_count)


def ranks_of(side: Any, phase: Phase, layout: KvLayout) -> list[Rank]:
    """The ranks of an engine of the layout's degrees; they have not registered yet."""
    ranks, name = [], uuid.uuid4().hex
    path = side.config.engine_socket
    for part in parts_of(layout, layout.tp, layout.pp):
        told = type(side.engine)(layout)
        client = EngineClient(path, layout, phase, told, part=part, engine=name)
        ranks.append(Rank(part, client, told))
    return ranks
