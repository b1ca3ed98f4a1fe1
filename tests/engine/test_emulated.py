"""The emulated engine: checkable tokens and caches, in the time it was told to take."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from thunderserve.core.errors import (
    EngineBusyError,
    InvalidArgumentError,
    PreconditionError,
    TransferError,
)
from thunderserve.core.plan import Phase
from thunderserve.core.request import FinishReason
from thunderserve.engine.emulated import (
    EmulatedClock,
    EmulatedEngine,
    MemoryExchange,
    MemoryKvPort,
    PlainTimes,
)
from thunderserve.engine.emulated.tokens import Prefix, kv_matches, kv_values

if TYPE_CHECKING:
    from thunderserve.core.kv import KvLayout
    from thunderserve.core.request import DecodeLeg
    from thunderserve.engine.model import ModelShape

TIMES = PlainTimes(prefill_s_per_token=0.5, decode_s_per_step=3.0, flip_s=11.0)
SPEED = 1000.0


class Fleet:
    """Engines that share an exchange and a clock."""

    def __init__(self, model: ModelShape, layout: KvLayout) -> None:
        self.model, self.layout = model, layout
        self.exchange, self.clock = MemoryExchange(), EmulatedClock(SPEED)

    async def engine(self, phase: Phase, times: PlainTimes = TIMES) -> EmulatedEngine:
        port = MemoryKvPort(self.exchange, timeout_s=0.2)
        engine = EmulatedEngine(self.model, self.layout, times, port, clock=self.clock)
        await engine.start(phase)
        return engine


@pytest.fixture
def fleet(model: ModelShape, layout: KvLayout) -> Fleet:
    return Fleet(model, layout)


async def answer(engine: EmulatedEngine, leg: DecodeLeg) -> list[int]:
    return [token async for chunk in engine.decode(leg) for token in chunk.token_ids]


async def test_pair_answers_as_colocated_when_cache_travels(fleet: Fleet, legs: Any) -> None:
    """The prefill leg's token is the decode leg's first."""
    prefill, decode = await fleet.engine(Phase.PREFILL), await fleet.engine(Phase.DECODE)
    colocated = await fleet.engine(Phase.COLOCATED)
    expected = await answer(colocated, legs.decode(room=None))
    tokens = asyncio.create_task(answer(decode, legs.decode(room=3)))
    firsts = [token async for token in prefill.prefill(legs.prefill(room=3))]
    assert await tokens == expected
    assert firsts == expected[:1]
    assert len(expected) == 5


async def test_engine_takes_no_less_than_it_was_told(fleet: Fleet, legs: Any) -> None:
    """40 prompt tokens at 0.5 s, then 4 steps at 3 s, then a flip; moments exact: see rounds."""
    engine = await fleet.engine(Phase.COLOCATED)
    began_s = fleet.clock.now_s()
    await answer(engine, legs.decode(room=None))
    answered_s = fleet.clock.now_s()
    await engine.switch(Phase.DECODE)
    assert answered_s - began_s >= 40 * 0.5 + 4 * 3.0
    assert fleet.clock.now_s() - answered_s >= 11.0
    assert engine.weight_loads == 1


async def test_decode_waits_when_memory_is_full(fleet: Fleet, legs: Any) -> None:
    """Two requests of 45 tokens do not fit in 50, so the second waits for the first."""
    times = PlainTimes(prefill_s_per_token=0.0, decode_s_per_step=3.0, capacity_tokens=50)
    engine = await fleet.engine(Phase.COLOCATED, times)
    first, second = (engine.decode(legs.decode(room=None)) for _ in range(2))
    await anext(first)
    waiting = asyncio.ensure_future(anext(second))
    rest = [chunk async for chunk in first]
    assert rest[-1].finish_reason is FinishReason.LENGTH
    assert (await waiting).token_ids
    await second.aclose()


async def test_engine_stands_still_when_its_clock_does(fleet: Fleet, legs: Any) -> None:
    """And goes on where it was: the step, of 0.2 real seconds, ends only after the thaw."""
    times = PlainTimes(prefill_s_per_token=0.0, decode_s_per_step=0.2 * SPEED)
    engine = await fleet.engine(Phase.COLOCATED, times)
    chunks = engine.decode(legs.decode(room=None))
    await anext(chunks)
    fleet.clock.slow_down(float("inf"))
    stuck = asyncio.ensure_future(anext(chunks))
    await asyncio.wait([stuck], timeout=0.3)
    assert not stuck.done()
    fleet.clock.slow_down(1)
    assert (await stuck).token_ids
    await chunks.aclose()


async def test_decode_fails_when_cache_is_another_prompts(fleet: Fleet, legs: Any) -> None:
    prefill, decode = await fleet.engine(Phase.PREFILL), await fleet.engine(Phase.DECODE)
    other = tuple(range(21, 61))
    tokens = asyncio.create_task(answer(decode, legs.decode(room=3)))
    async for _ in prefill.prefill(legs.prefill(room=3, prompt=other)):
        pass
    with pytest.raises(TransferError, match="room 3"):
        await tokens


async def test_prefill_fails_when_nobody_takes_the_cache(fleet: Fleet, legs: Any) -> None:
    prefill = await fleet.engine(Phase.PREFILL)
    with pytest.raises(TransferError, match="nobody came"):
        async for _ in prefill.prefill(legs.prefill(room=4)):
            pass


async def test_prefill_fails_when_decode_is_cancelled(fleet: Fleet, legs: Any) -> None:
    prefill, decode = await fleet.engine(Phase.PREFILL), await fleet.engine(Phase.DECODE)
    tokens = asyncio.create_task(answer(decode, legs.decode(room=6)))
    await asyncio.sleep(0)
    tokens.cancel()
    await asyncio.gather(tokens, return_exceptions=True)
    with pytest.raises(TransferError, match="cancelled"):
        async for _ in prefill.prefill(legs.prefill(room=6)):
            pass


async def test_switch_is_refused_when_a_request_runs(fleet: Fleet, legs: Any) -> None:
    engine = await fleet.engine(Phase.COLOCATED)
    chunks = engine.decode(legs.decode(room=None))
    await anext(chunks)
    with pytest.raises(EngineBusyError, match="1 requests"):
        await engine.switch(Phase.DECODE)
    await chunks.aclose()
    await engine.switch(Phase.DECODE)


async def test_engine_without_port_stays_colocated(model: Any, layout: Any) -> None:
    engine = EmulatedEngine(model, layout, TIMES)
    assert engine.capabilities.phases == (Phase.COLOCATED,)
    with pytest.raises(PreconditionError, match="COLOCATED alone"):
        await engine.start(Phase.PREFILL)


async def test_decode_stops_when_a_stop_token_comes(fleet: Fleet, legs: Any) -> None:
    engine = await fleet.engine(Phase.COLOCATED)
    leg = legs.decode(room=None)
    third = (await answer(engine, leg))[2]
    sampling = type(leg.sampling)(max_tokens=5, stop_token_ids=(third,))
    stopped = type(leg)("r", leg.prompt_token_ids, sampling, None)
    chunks = [chunk async for chunk in engine.decode(stopped)]
    assert sum(len(chunk.token_ids) for chunk in chunks) == 3
    assert chunks[-1].finish_reason is FinishReason.STOP


@pytest.mark.parametrize(
    ("prompt", "max_tokens", "words"),
    [
        ((), 1, "empty"),
        ((5,) * 64, 1, "has 64 tokens; it and its answer may have 64"),
        ((5,) * 60, 5, r"prompt \(60 tokens\) and max_tokens \(5\) are 65 together"),
        ((5, 1000), 1, r"token id 1000 is not in \[0, 1000\)"),
    ],
)
async def test_engine_refuses_prompt_that_does_not_fit(
    fleet: Fleet, legs: Any, prompt: tuple[int, ...], max_tokens: int, words: str
) -> None:
    engine = await fleet.engine(Phase.COLOCATED)
    leg = legs.decode(room=None, prompt=prompt, max_tokens=max_tokens)
    with pytest.raises(InvalidArgumentError, match=words):
        await anext(engine.decode(leg))


def test_tokens_depend_on_every_token_before() -> None:
    assert Prefix([1, 2, 3]).next_token(4096) == Prefix([1, 2, 3]).next_token(4096)
    assert Prefix([1, 2, 3]).seed != Prefix([2, 2, 3]).seed
    assert 16 <= Prefix([1]).next_token(4096) < 4096


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_cache_matches_through_4_bits_but_no_other_prompt(dtype: str) -> None:
    """Quantised per 64 values as the wire does, it is still told from a one-token change."""
    from thunderserve.core.kv import KvLayout  # noqa: PLC0415 - one test needs it
    from thunderserve.engine.emulated.tokens import _bits, _floats  # noqa: PLC0415 - same

    layout = KvLayout("m", 2, 2, 64, 16, dtype)
    prompt = tuple(range(100, 150))
    values = kv_values(prompt, layout)
    assert values.shape == layout.block_shape(2, 4)
    assert kv_matches(values, prompt, layout)
    floats = _floats(values, dtype)
    low, high = floats.min(-1, keepdims=True), floats.max(-1, keepdims=True)
    codes = np.rint((floats - low) / (high - low) * 15)
    coarse = _bits((codes / 15 * (high - low) + low).astype(np.float32), dtype)
    assert kv_matches(coarse, prompt, layout)
    assert not kv_matches(coarse, (*prompt[:-1], 999), layout)
