"""A real SGLang pair behind its sidecars: abandoned legs, a flip under load, a killed worker."""

from __future__ import annotations

import asyncio
import signal
from typing import TYPE_CHECKING, Any

import psutil
import pytest
from google.protobuf.duration_pb2 import Duration

from thunderserve.api.types.v1 import types_pb2
from thunderserve.api.worker.v1 import worker_pb2
from thunderserve.core.errors import ThunderServeError, TransferError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

pytestmark = pytest.mark.sglang

PROMPT = tuple(range(100, 400))
LONG_PROMPT = tuple(range(50, 1950))


class Pair:
    """A prefill and a decode worker, and rooms between them."""

    def __init__(self, requests: Any, prefill: Any, decode: Any, address: str) -> None:
        self.requests, self.prefill, self.decode, self.address = requests, prefill, decode, address
        self.rooms = 0

    def legs(
        self, prompt: tuple[int, ...], max_tokens: int
    ) -> tuple[AsyncIterator[Any], AsyncIterator[Any]]:
        """Both legs of a new request."""
        self.rooms += 1
        ticket = self.requests.ticket(self.rooms, self.address)
        prefill = self.prefill.legs.prefill(self.requests.prefill(prompt, ticket), 60)
        return prefill, self.decode.chunks(self.requests.decode(prompt, max_tokens, ticket))

    async def tokens(self, prompt: tuple[int, ...], max_tokens: int) -> tuple[int, list[int]]:
        """The prefill leg's token and the decode leg's."""
        prefill, decode = self.legs(prompt, max_tokens)
        events, chunks = await asyncio.gather(_read(prefill), _read(decode))
        return events[0], [token for chunk in chunks for token in chunk.token_ids]

    async def flip(self, client: Any, phase: types_pb2.Phase) -> Any:
        """Switch and switch back would both fail were the engine not idle.

        Requests have long enough to end here on a busy machine: what outlives the drain is sent
        away.
        """
        request = worker_pb2.SwitchPhaseRequest(phase=phase, drain_timeout=Duration(seconds=60))
        return await client.stub.SwitchPhase(request, timeout=90)


@pytest.mark.timeout(300)
async def test_pair_frees_abandoned_legs_flips_and_survives_a_kill(
    launch: Any, connect: Any, requests: Any
) -> None:
    """Two starts, the slow part, and then all that a pair must bear."""
    (_, near), (_, far) = launch.sidecar(), launch.sidecar()
    pieces = {"chunked_prefill_tokens": "256"}
    prefill, decode = launch.worker("prefill", **near, **pieces), launch.worker(**far, **pieces)
    for process in launch.started:
        await process.wait_serving(200)
    pair = Pair(requests, connect(prefill), connect(decode), near["kvlink_advertised_address"])
    first, tokens = await pair.tokens(PROMPT, 12)
    assert len(tokens) == 12
    assert first == tokens[0]
    await _lone_legs_are_freed(pair)
    await _flip_waits_for_requests(pair)
    await _killed_worker_fails_the_other_leg(pair, prefill)


async def _lone_legs_are_freed(pair: Pair) -> None:
    """A leg whose partner never comes holds its engine, until its caller goes away."""
    phases = (types_pb2.PHASE_PREFILL, types_pb2.PHASE_DECODE)
    for side, client in enumerate((pair.prefill, pair.decode)):
        reader = asyncio.create_task(_read(pair.legs(PROMPT, 1000)[side]))
        await client.until(lambda status: status.in_flight_count == 1)
        reader.cancel()
        await asyncio.gather(reader, return_exceptions=True)
        assert await client.until(lambda status: status.in_flight_count == 0) < 1
        response = await pair.flip(client, phases[1 - side])
        assert response.drain_s + response.switch_s < 1
        response = await pair.flip(client, phases[side])
        assert response.status.weight_load_count == 1


async def _flip_waits_for_requests(pair: Pair) -> None:
    """All answers are whole; then the pair serves the way it did.

    Alone, since a batch of another size may round otherwise.
    """
    expected = await pair.tokens(PROMPT, 40)
    running = [asyncio.create_task(pair.tokens(PROMPT, 40)) for _ in range(4)]
    await pair.decode.until(lambda status: status.in_flight_count == 4)
    response = await pair.flip(pair.decode, types_pb2.PHASE_PREFILL)
    assert response.drain_s > 0
    for first, tokens in await asyncio.gather(*running):
        assert (first, len(tokens)) == (tokens[0], 40)
    await pair.flip(pair.decode, types_pb2.PHASE_DECODE)
    assert await pair.tokens(PROMPT, 40) == expected


async def _killed_worker_fails_the_other_leg(pair: Pair, worker: Any) -> None:
    """Killed in mid-transfer: the decode leg ends in an error, no scheduler is left behind."""
    legs = [asyncio.create_task(_read(leg)) for leg in pair.legs(LONG_PROMPT, 10)]
    await pair.prefill.until(lambda status: status.in_flight_count == 1)
    children = worker.children()
    assert worker.stop(signal.SIGKILL) == -9
    prefill, decode = await asyncio.gather(*legs, return_exceptions=True)
    assert isinstance(prefill, ThunderServeError)
    assert isinstance(decode, TransferError)
    assert await pair.decode.until(lambda status: status.in_flight_count == 0) < 1
    _, alive = psutil.wait_procs(children, timeout=2)
    assert alive == []


async def _read(stream: AsyncIterator[Any]) -> list[Any]:
    return [item async for item in stream]
