"""One try of a request on one pair: both legs at once, one stream of tokens out."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import TYPE_CHECKING, Protocol, Self

from thunderserve.core.errors import ThunderServeError, UnavailableError
from thunderserve.core.request import FinishReason, TokenChunk, TransferReport
from thunderserve.router.splice import Splice

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
    from types import TracebackType

    from thunderserve.core.fleet import Worker
    from thunderserve.core.request import DecodeLeg, PrefillLeg
    from thunderserve.router.routing import Pair

__all__ = ["Attempt", "LegFailure", "Legs"]

REPORT_TIMEOUT_S = 1.0


class Legs(Protocol):
    """The two legs on one worker; errors are ours, closing an iterator ends its call."""

    def prefill(self, leg: PrefillLeg, timeout_s: float) -> AsyncGenerator[int | TransferReport]:
        """The first token, then the report of the KV transfer."""

    def decode(self, leg: DecodeLeg, timeout_s: float) -> AsyncGenerator[TokenChunk]:
        """Every token of the answer, the first one included."""


class LegFailure(Exception):  # noqa: N818 - wraps an error of ours; never leaves the router
    """A leg ended with `error` on `worker`."""

    def __init__(self, worker: Worker, error: ThunderServeError) -> None:
        super().__init__(f"{worker.group_id}: {error}")
        self.worker = worker
        self.error = error


class Attempt:
    """Runs the legs while the block runs; leaving it cancels whatever is still running.

    ::

        async with Attempt(pair, legs_of, prefill_leg, decode_leg, timeout_s) as attempt:
            async for chunk in attempt.tokens():
                ...
    """

    def __init__(
        self,
        pair: Pair,
        legs_of: Callable[[Worker], Legs],
        prefill_leg: PrefillLeg | None,
        decode_leg: DecodeLeg,
        timeout_s: float,
    ) -> None:
        self.transfer: TransferReport | None = None
        self._pair = pair
        self._legs_of = legs_of
        self._prefill_leg = prefill_leg
        self._decode_leg = decode_leg
        self._timeout_s = timeout_s
        self._splice = Splice()
        self._events: asyncio.Queue[int | TokenChunk | LegFailure] = asyncio.Queue()
        self._prefill: asyncio.Task[None] | None = None
        self._decode: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        pair = self._pair
        if self._prefill_leg is not None:
            run = self._run_prefill(self._legs_of(pair.prefill), self._prefill_leg)
            self._prefill = asyncio.create_task(self._guarded(pair.prefill, run))
        decode = self._run_decode(self._legs_of(pair.decode), self._decode_leg)
        self._decode = asyncio.create_task(self._guarded(pair.decode, decode))
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        tasks = [task for task in (self._prefill, self._decode) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def tokens(self) -> AsyncIterator[TokenChunk]:
        """Every token once; the last chunk carries the finish reason.

        Raises:
            LegFailure: A leg failed while its work was still needed.
            LegsDisagreeError: The legs differ on the first token.
        """
        decode_began = False
        while True:
            event = await self._events.get()
            if isinstance(event, TokenChunk):
                decode_began = True
                if (shown := self._splice.decode(event.token_ids)) or event.finish_reason:
                    yield TokenChunk(shown, event.finish_reason)
                if event.finish_reason is not None:
                    return
            elif isinstance(event, LegFailure):
                # Once decode runs, the KV cache has arrived and prefill has done its part.
                if event.worker is self._pair.decode or not decode_began:
                    raise event
            elif shown := self._splice.prefill(event):
                yield TokenChunk(shown)

    async def wait_report(self) -> None:
        """Give the prefill leg a moment to report its transfer after the last token."""
        if self._prefill is not None and self.transfer is None:
            await asyncio.wait([self._prefill], timeout=REPORT_TIMEOUT_S)

    async def _guarded(self, worker: Worker, run: Awaitable[None]) -> None:
        try:
            await run
        except ThunderServeError as error:
            self._events.put_nowait(LegFailure(worker, error))

    async def _run_prefill(self, legs: Legs, leg: PrefillLeg) -> None:
        answered = False
        async with aclosing(legs.prefill(leg, self._timeout_s)) as events:
            async for event in events:
                if isinstance(event, TransferReport):
                    self.transfer = event
                else:
                    answered = True
                    self._events.put_nowait(event)
        if not answered:
            raise UnavailableError("the prefill leg ended without a token")

    async def _run_decode(self, legs: Legs, leg: DecodeLeg) -> None:
        finished = False
        async with aclosing(legs.decode(leg, self._timeout_s)) as chunks:
            async for chunk in chunks:
                if chunk.finish_reason is FinishReason.CANCELLED:
                    raise UnavailableError("the worker cancelled the request")
                finished = chunk.finish_reason is not None
                self._events.put_nowait(chunk)
        if not finished:
            raise UnavailableError("the decode leg ended before the answer did")
