"""The emulated engine behind the engine protocol."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass
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
from thunderserve.engine.emulated.answer import Answer
from thunderserve.engine.emulated.clock import EmulatedClock
from thunderserve.engine.emulated.driver import Driver
from thunderserve.engine.emulated.job import Job
from thunderserve.engine.emulated.memory import KvMemory
from thunderserve.engine.emulated.pipeline import PrefillPipeline
from thunderserve.engine.emulated.rounds import Rounds
from thunderserve.engine.emulated.tokens import Prefix, kv_matches, kv_values, page_count

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterator

    from thunderserve.core.kv import KvLayout
    from thunderserve.core.request import DecodeLeg, PrefillLeg, TokenChunk, TransferTicket
    from thunderserve.engine.emulated.job import Progress
    from thunderserve.engine.emulated.network import EmulatedNetwork
    from thunderserve.engine.emulated.port import KvPort
    from thunderserve.engine.emulated.times import EmulatedTimes
    from thunderserve.engine.model import ModelShape

__all__ = ["Batching", "EmulatedEngine"]

_AUX_BYTES = 4
# Real seconds: steps that are faster, at high speeds, tell their tokens together.
_TELL_INTERVAL_S, _LONGEST_TELL_INTERVAL_S = 0.01, 0.05


@dataclass(frozen=True, slots=True)
class Batching:
    """What the engine puts together: prompt tokens of a pass, requests that decode."""

    chunk_tokens: int = 2048
    max_running: int = 256


class EmulatedEngine:
    """Answers with tokens that are a function of the prefix, in the time a cost model says.

    Its KV cache is a function of the prompt: it is really sent, and the decode side checks it. It
    batches as SGLang does: prompts in chunks through a pipeline, answers in continuous batches, and
    where it is colocated both in the same rounds. KV memory is set aside for a whole request before
    its prompt is computed.

    Args:
        model: Its vocabulary and context.
        layout: Of the cache; smaller than the model's scales its volume down.
        times: How long everything takes.
        port: Moves the cache; None where it only ever runs colocated.
        clock: Tells the time; slow it down to slow the engine down.
        batching: See there.
        network: What the cache takes between hosts, on top of what the port takes.
        node_id: Its host in that network.
    """

    def __init__(
        self,
        model: ModelShape,
        layout: KvLayout,
        times: EmulatedTimes,
        port: KvPort | None = None,
        *,
        clock: EmulatedClock | None = None,
        batching: Batching | None = None,
        network: EmulatedNetwork | None = None,
        node_id: str = "",
    ) -> None:
        self._model = model
        self._layout = layout
        self._times = times
        self._port = port
        self._clock = clock or EmulatedClock()
        batching = batching or Batching()
        self._network = network
        self._node_id = node_id
        self._phase = Phase.COLOCATED
        self._weight_loads = 0
        self._running = 0
        self._memory = KvMemory(times.capacity_tokens)
        self._prompts = PrefillPipeline(times, chunk_tokens=batching.chunk_tokens)
        self._rounds = Rounds(
            times, chunk_tokens=batching.chunk_tokens, max_running=batching.max_running
        )
        self._prefilling = Driver(self._prompts, self._clock)
        interval_s = min(_TELL_INTERVAL_S * self._clock.speed, _LONGEST_TELL_INTERVAL_S)
        self._decoding = Driver(self._rounds, self._clock, interval_s=interval_s)

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
            context_tokens=self._context_tokens,
            unequal_tp=True,
            unequal_pp=True,
        )

    @property
    def weight_loads(self) -> int:
        """1 after `start`."""
        return self._weight_loads

    @property
    def used_tokens(self) -> int:
        """KV memory that is set aside now."""
        return self._memory.used_tokens

    @property
    def clock(self) -> EmulatedClock:
        """The engine's own time."""
        return self._clock

    async def start(self, phase: Phase) -> None:
        """Take the time of a start; raises EngineFailedError when the port does not open."""
        await self._clock.sleep(self._times.start_s)
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
        prompt, room = leg.prompt_token_ids, leg.transfer.room
        self._model.check(prompt, 1, self._context_tokens)
        port = self._required_port
        with self._request(), _aborting(port, room):
            await port.wait_reserved(room)
            async with self._memory.reserved(len(prompt)):
                arrival_s = await self._compute(prompt, room)
                first = Prefix(prompt).next_token(self._model.vocab_tokens)
                yield first
                values = await asyncio.to_thread(kv_values, prompt, self._layout)
                if self._network is not None:
                    await self._network.wait_arrival(arrival_s)
                await port.send(room, values, first.to_bytes(_AUX_BYTES, "little"))

    async def decode(self, leg: DecodeLeg) -> AsyncGenerator[TokenChunk, None]:
        """Every token of the answer, one a step."""
        prompt, sampling = leg.prompt_token_ids, leg.sampling
        self._model.check(prompt, sampling.max_tokens, self._context_tokens)
        answer = Answer(prompt, sampling, self._model.vocab_tokens)
        job = Job(len(prompt), sampling.max_tokens)
        with self._request(), self._decoding.watching(job) as progress:
            async with self._memory.reserved(job.total_tokens):
                if leg.transfer is None:
                    self._decoding.submit(job, self._rounds.enqueue)
                else:
                    await self._receive(prompt, leg.transfer, answer.next_token)
                    first = answer.take(1)
                    yield first
                    if first.finish_reason is not None:
                        return
                    job.produced_tokens = 1
                    self._decoding.submit(job, self._rounds.join)
                async for step in progress:
                    chunk = answer.take(step.produced_tokens)
                    if chunk.token_ids:
                        yield chunk
                    if chunk.finish_reason is not None:
                        return

    async def switch(self, phase: Phase) -> None:
        """Take the time of a flip."""
        if self._running:
            raise EngineBusyError(f"{self._running} requests are running")
        if phase not in self.capabilities.phases:
            raise PreconditionError(f"this engine has no sidecar; it cannot change to {phase}")
        await self._clock.sleep(self._times.flip_s)
        try:
            await self._open_port(phase)
        except UnavailableError as error:
            raise EngineFailedError(str(error)) from error
        self._phase = phase

    async def stop(self) -> None:
        """Close the port."""
        await self._prefilling.stop()
        await self._decoding.stop()
        if self._port is not None:
            await self._port.close()

    @property
    def _context_tokens(self) -> int:
        """The model's, or what the memory holds."""
        return min(self._model.context_tokens, self._times.capacity_tokens)

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

    async def _compute(self, prompt: tuple[int, ...], room: int) -> float:
        """Compute a prompt, its chunks leaving as they are ready; when the last one arrives."""
        job, arrival_s = Job(len(prompt), 1), 0.0
        with self._prefilling.watching(job) as progress:
            self._prefilling.submit(job, self._prompts.enqueue)
            async for step in progress:
                arrival_s = max(arrival_s, self._arrival_s(room, step))
                if step.produced_tokens:
                    break
        return arrival_s

    def _arrival_s(self, room: int, step: Progress) -> float:
        if self._network is None:
            return 0.0
        # The engine's own clock may have been slowed down; the network's has not.
        at_s = self._network.clock.now_s() - (self._clock.now_s() - step.at_s)
        return self._network.send(room, self._node_id, step.computed_tokens, at_s)

    async def _receive(self, prompt: tuple[int, ...], ticket: TransferTicket, first: int) -> None:
        """Fetch the cache and check it, and the first token that comes with it."""
        room, pages = ticket.room, page_count(len(prompt), self._layout)
        with self._expected(room):
            values, aux = await self._required_port.receive(
                room, ticket.prefill_kvlink_address, pages
            )
        if int.from_bytes(aux, "little") != first:
            raise TransferError(f"room {room}: the first token that came is not {first}")
        if not await asyncio.to_thread(kv_matches, values, prompt, self._layout):
            raise TransferError(f"room {room}: the KV cache that came is not the prompt's")

    @contextlib.contextmanager
    def _expected(self, room: int) -> Iterator[None]:
        """The network knows where the room's cache goes while the block runs."""
        if self._network is None:
            yield
            return
        self._network.expect(room, self._node_id)
        try:
            yield
        finally:
            self._network.forget(room)

    @contextlib.contextmanager
    def _request(self) -> Iterator[None]:
        self._running += 1
        try:
            yield
        finally:
            self._running -= 1


@contextlib.contextmanager
def _aborting(port: KvPort, room: int) -> Iterator[None]:
    """Tell the other side when the block does not come to its end."""
    try:
        yield
    except BaseException as error:
        port.abort(room, str(error) or type(error).__name__)
        raise
