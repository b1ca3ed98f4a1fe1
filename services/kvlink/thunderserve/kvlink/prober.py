"""Probes links that no transfer has measured lately, one at a time and never beside a transfer."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from thunderserve.core.errors import PreconditionError, ThunderServeError, UnavailableError
from thunderserve.kvlink.measuring import probe_link

if TYPE_CHECKING:
    from collections.abc import Callable

    from thunderserve.kvlink.links import Links
    from thunderserve.kvlink.measuring import LinkMeter, Probe

__all__ = ["Prober"]

_log = logging.getLogger(__name__)
_CHECK_INTERVAL_S = 5.0
_PROBE_TIMEOUT_S = 15.0  # what is sent in half a second may take longer to arrive


class Prober:
    """Asks for a rate where nothing else tells one.

    Args:
        links: Bulk connections.
        meter: Takes what is found.
        busy: True for a peer that a room is open with.
        after_s: A link whose rate was not confirmed for so long is probed; 0: only when asked to.
    """

    def __init__(
        self, links: Links, meter: LinkMeter, busy: Callable[[str], bool], after_s: float
    ) -> None:
        self._links = links
        self._meter = meter
        self._busy = busy
        self._after_s = after_s
        self._turn = asyncio.Lock()

    async def run(self) -> None:
        """Probe what needs it, until cancelled."""
        while self._after_s:
            await asyncio.sleep(_CHECK_INTERVAL_S)
            for peer in self._meter.unconfirmed(self._after_s):
                await self._try(peer)

    async def probe(self, peer: str) -> Probe:
        """Measure the link to `peer` now.

        Raises:
            PreconditionError: Another link is being probed, or a transfer needs this one.
            UnavailableError: The peer cannot be reached, or not in time.
        """
        if self._turn.locked():
            raise PreconditionError("another link is being probed")
        async with self._turn:
            if self._busy(peer):
                raise PreconditionError(f"a transfer with {peer} is open")
            probe = await self._measure(peer)
            if not probe.bytes_per_s:
                raise PreconditionError(f"the probe of {peer} was called off: a transfer began")
            self._meter.probed(peer, probe)
            _log.info("probed the link to %s: %s", peer, probe)
            return probe

    async def _measure(self, peer: str) -> Probe:
        stream = await self._links.acquire(peer)
        try:
            async with asyncio.timeout(_PROBE_TIMEOUT_S):
                probe = await probe_link(stream, lambda: self._busy(peer))
        except TimeoutError:
            stream.close()
            raise UnavailableError(f"{peer} did not answer a probe in time") from None
        except BaseException:
            stream.close()
            raise
        self._links.release(peer, stream)
        return probe

    async def _try(self, peer: str) -> None:
        try:
            await self.probe(peer)
        except PreconditionError:
            return  # there is traffic: it will tell, or the next look will find the link idle
        except ThunderServeError as error:
            self._meter.forget(peer)
            _log.info("cannot probe %s: %s", peer, error)
