"""The emulated engine behind the engine protocol."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

from thunderserve.core.errors import (
    EngineBusyError,
    EngineFailedError,
    PreconditionError,
    TransferError,
    UnavailableError,
)
from thunderserve.core.fleet import Capabilities
from thunderserve.core.plan import Phase
from thunderserve.core.request import FinishReason, TokenChunk
from thunderserve.engine.emulated.tokens import Prefix, kv_matches, kv_values, page_count

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator

    from thunderserve.core.kv import KvLayout
    from thunderserve.core.request import DecodeLeg, PrefillLeg, TransferTicket
    from thunderserve.engine.emulated.port import KvPort
    from thunderserve.engine.emulated.times import EmulatedTimes
    from thunderserve.engine.model import ModelShape

__all__ = ["EmulatedEngine"]

_AUX_BYTES = 4


class EmulatedEngine:
    """Answers with tokens that are a function of the prefix, in the time a cost model says.

    Its KV cache is a function of the prompt: it is really sent, and the decode side checks it.

    Args:
        model: Its vocabulary and context.
        layout: Of the cache; fewer layers than the model's scale its volume down.
        times: How long everything takes.
        port: Moves the cache; None where it only ever runs colocated.
        sleep: Waits so many seconds.
    """

    def __init__(
        self,
        model: ModelShape,
        layout: KvLayout,
        times: EmulatedTimes,
        port: KvPort | None = None,
        *,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._model = model
        self._layout = layout
        self._times = times
        self._port = port
        self._sleep = sleep
        self._phase = Phase.COLOCATED
        self._weight_loads = 0
        self._running = 0
        self._decoding = 0
        self._computing = asyncio.Lock()

    @property
    def capabilities(self) -> Capabilities:
        """It changes between all phases; without a port there is only COLOCATED."""
        return Capabilities(
            phases=(Phase.COLOCATED,) if self._port is None else tuple(Phase),
            flippable=self._port is not None,
            tp=self._layout.tp,
            pp=self._layout.pp,
            kv_dtype=self._layout.dtype,
            page_size_tokens=self._layout.page_size_tokens,
            context_tokens=self._model.context_tokens,
            unequal_tp=True,
            unequal_pp=True,
        )

    @property
    def weight_loads(self) -> int:
        """1 after `start`."""
        return self._weight_loads

    async def start(self, phase: Phase) -> None:
        """Take the time of a start; raises EngineFailedError when the port does not open."""
        await self._sleep(self._times.start_s)
        try:
            await self._open_port(phase)
        except UnavailableError as error:
            raise EngineFailedError(str(error)) from error
        self._weight_loads += 1
        self._phase = phase

    async def wait_failed(self) -> EngineFailedError:
        """It never fails."""
        await asyncio.Event().wait()
        raise AssertionError("nobody sets the event")

    async def prefill(self, leg: PrefillLeg) -> AsyncGenerator[int, None]:
        """The first token; ends when the decode side has the cache."""
        prompt = leg.prompt_token_ids
        self._model.check(prompt, 1, self._model.context_tokens)
        with self._request():
            await self._compute(prompt)
            first = Prefix(prompt).next_token(self._model.vocab_tokens)
            yield first
            values = await asyncio.to_thread(kv_values, prompt, self._layout)
            aux = first.to_bytes(_AUX_BYTES, "little")
            await self._required_port.send(leg.transfer.room, values, aux)

    async def decode(self, leg: DecodeLeg) -> AsyncGenerator[TokenChunk, None]:
        """Every token of the answer, one a step."""
        prompt, sampling = leg.prompt_token_ids, leg.sampling
        self._model.check(prompt, sampling.max_tokens, self._model.context_tokens)
        with self._request():
            prefix = Prefix(prompt)
            if leg.transfer is None:
                await self._compute(prompt)
            else:
                await self._receive(prompt, leg.transfer, prefix)
            with self._decode_slot():
                for count in range(1, sampling.max_tokens + 1):
                    token = prefix.next_token(self._model.vocab_tokens)
                    prefix.extend([token])
                    stop = token in sampling.stop_token_ids
                    if stop or count == sampling.max_tokens:
                        reason = FinishReason.STOP if stop else FinishReason.LENGTH
                        yield TokenChunk((token,), reason)
                        return
                    yield TokenChunk((token,))
                    await self._sleep(self._times.decode_step_s(self._decoding))

    async def switch(self, phase: Phase) -> None:
        """Take the time of a flip."""
        if self._running:
            raise EngineBusyError(f"{self._running} requests are running")
        if phase not in self.capabilities.phases:
            raise PreconditionError(f"this engine has no sidecar; it cannot change to {phase}")
        await self._sleep(self._times.flip_s)
        try:
            await self._open_port(phase)
        except UnavailableError as error:
            raise EngineFailedError(str(error)) from error
        self._phase = phase

    async def stop(self) -> None:
        """Close the port."""
        if self._port is not None:
            await self._port.close()

    @property
    def _required_port(self) -> KvPort:
        if self._port is None:
            raise PreconditionError("this engine has no sidecar; it serves COLOCATED alone")
        return self._port

    async def _open_port(self, phase: Phase) -> None:
        if self._port is not None:
            await self._port.close()
        if phase is not Phase.COLOCATED:
            await self._required_port.open(phase, self._layout)

    async def _compute(self, prompt: tuple[int, ...]) -> None:
        async with self._computing:
            await self._sleep(self._times.prefill_s(len(prompt)))

    async def _receive(
        self, prompt: tuple[int, ...], ticket: TransferTicket, prefix: Prefix
    ) -> None:
        values, aux = await self._required_port.receive(
            ticket.room, ticket.prefill_kvlink_address, page_count(len(prompt), self._layout)
        )
        first = prefix.next_token(self._model.vocab_tokens)
        if int.from_bytes(aux, "little") != first:
            raise TransferError(f"room {ticket.room}: the first token that came is not {first}")
        if not await asyncio.to_thread(kv_matches, values, prompt, self._layout):
            raise TransferError(f"room {ticket.room}: the KV cache that came is not the prompt's")

    @contextlib.contextmanager
    def _request(self) -> Iterator[None]:
        self._running += 1
        try:
            yield
        finally:
            self._running -= 1

    @contextlib.contextmanager
    def _decode_slot(self) -> Iterator[None]:
        self._decoding += 1
        try:
            yield
        finally:
            self._decoding -= 1
