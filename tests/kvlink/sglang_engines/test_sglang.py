"""Answers of two engines with a transfer between them, against those of one engine."""

from __future__ import annotations

import asyncio
from typing import Any

import psutil  # type: ignore[import-untyped]  # it ships no types
import pytest

from thunderserve.core.request import WireMode

pytestmark = [
    pytest.mark.sglang,
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.timeout(600),  # the first test waits for three engines to start
]
# Short, just under, at and over a chunk of 64 tokens, and several chunks.
LENGTHS = (5, 63, 64, 65, 200, 333)
MAX_TOKENS = 16


@pytest.mark.parametrize("length", LENGTHS)
async def test_answer_is_that_of_one_engine_when_raw16(fleet: Any, length: int) -> None:
    """Exact KV gives exact tokens, for prompts of one page, of many, and of several chunks."""
    tokens, first, report = await fleet.answer(length, WireMode.RAW16)

    assert tokens == await fleet.expected(length)
    assert first["token"] == tokens[0]
    assert report.raw_bytes == length * 8 * 2 * 2 * 64 * 2  # layers, k and v, heads, dim, bytes
    assert 0 < report.wire_bytes - report.raw_bytes < 8192


async def test_answers_stay_apart_when_many_run_at_once(fleet: Any) -> None:
    """Rooms that are transferred beside each other do not mix."""
    lengths = LENGTHS * 2

    answers = await asyncio.gather(*(fleet.answer(n, WireMode.RAW16) for n in lengths))

    for length, (tokens, first, _) in zip(lengths, answers, strict=True):
        assert tokens[0] == first["token"]
        assert tokens == await fleet.expected(length)


async def test_answer_is_complete_and_cheaper_when_int4(fleet: Any) -> None:
    """The first token travels verbatim; the cache takes less than a third of its bytes."""
    tokens, first, report = await fleet.answer(200, WireMode.INT4)

    assert tokens[0] == first["token"] == (await fleet.expected(200))[0]
    assert len(tokens) == MAX_TOKENS
    assert report.wire_mode is WireMode.INT4
    assert report.wire_bytes * 3 < report.raw_bytes


async def test_first_token_comes_when_the_transfer_has_not_ended(fleet: Any) -> None:
    """A client's first token does not wait for the cache to arrive."""
    prefill, decode = fleet.pair
    legs = await fleet.announced(200, WireMode.RAW16)
    with decode.gate.closed():
        _, answer = decode.engine.ask("decode", max_tokens=MAX_TOKENS, **legs)
        number, leg = prefill.engine.ask("prefill", **legs)
        first = await prefill.engine.first_token(number)
        assert not leg.done()

    assert (await leg)["result"]["token"] == first
    assert (await answer)["result"] == await fleet.expected(200)


async def test_phases_swap_when_idle_and_swap_back(fleet: Any) -> None:
    """Both groups serve in the other phase without loading weights again."""
    for _ in range(2):
        switched = await fleet.swap()
        assert [each["weight_loads"] for each in switched] == [1, 1]
        for length in (64, 200):
            tokens, _, _ = await fleet.answer(length, WireMode.RAW16)
            assert tokens == await fleet.expected(length)


async def test_prefill_leg_ends_when_the_decode_leg_is_cancelled(fleet: Any) -> None:
    """The room is aborted on both sides, nothing is held, and the next request is served."""
    prefill, decode = fleet.pair
    legs = await fleet.announced(64, WireMode.RAW16)
    with decode.gate.closed():
        number, cancelled = decode.engine.ask("decode", max_tokens=MAX_TOKENS, **legs)
        sending, answer = prefill.engine.ask("prefill", **legs)
        await prefill.engine.first_token(sending)
        await decode.engine.do("cancel", what=number)

        assert "cancelled" in (await cancelled)["error"]
        assert "TransferError" in (await answer)["error"]
    assert (await fleet.answer(64, WireMode.RAW16))[0] == await fleet.expected(64)


async def test_decode_leg_ends_when_the_prefill_group_is_away(fleet: Any) -> None:
    """An address where no sidecar listens is an error that names it."""
    _, decode = fleet.pair
    legs = await fleet.announced(5, WireMode.RAW16) | {"peer": "127.0.0.1:9"}

    _, answer = decode.engine.ask("decode", max_tokens=MAX_TOKENS, **legs)

    assert "127.0.0.1:9" in (await answer)["error"]


async def test_engines_listen_on_loopback_alone_when_serving(fleet: Any) -> None:
    """SGLang's own sockets, which trust whoever connects, are never reachable from outside."""
    for group in fleet.groups:
        root = psutil.Process(group.engine.process.pid)
        for process in (root, *root.children(recursive=True)):
            for connection in process.net_connections("inet"):
                assert connection.laddr.ip in {"127.0.0.1", "::1"}, (process.cmdline(), connection)
