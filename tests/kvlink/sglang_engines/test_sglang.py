"""Answers of two engines with a transfer between them, against those of one engine."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from engine_vitals import foreign_connections, shared_segments, tree, vitals
from given_up import STAGES

from thunderserve.core.request import WireMode

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

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


async def test_phases_swap_both_ways_and_nothing_of_the_old_ones_is_left(fleet: Any) -> None:
    """Both serve in the other phase without loading weights again; threads and sockets end."""
    held = []
    for _ in range(2):
        for _ in range(2):
            switched = await fleet.swap()
            assert [each["weight_loads"] for each in switched] == [1, 1]
            for length in (64, 200):
                tokens, _, _ = await fleet.answer(length, WireMode.RAW16)
                assert tokens == await fleet.expected(length)
        processes = [p for g in fleet.groups for p in (g.engine.process.pid, g.sidecar.pid)]
        held.append(([vitals(pid) for pid in processes], shared_segments()))

    assert held[1] == held[0]
    for group in fleet.groups:
        assert "Traceback" not in (log := group.engine.log.read_text()), log


@pytest.mark.parametrize("give_up", STAGES)
async def test_nothing_is_held_when_a_request_is_given_up(
    fleet: Any, give_up: Callable[[Any, dict[str, Any]], Awaitable[None]]
) -> None:
    """SGLang's own books say so on both sides, and the next request gets its answer."""
    await give_up(fleet, await fleet.announced(200, WireMode.RAW16))

    await fleet.wait_usage([{"tokens": 0, "requests": 0}] * 2)
    assert (await fleet.answer(200, WireMode.RAW16))[0] == await fleet.expected(200)


async def test_engines_listen_on_loopback_and_speak_to_their_sidecars_alone(fleet: Any) -> None:
    """SGLang's own sockets trust whoever connects; its own rendezvous of engines is not used."""
    for group in fleet.groups:
        for process in tree(group.engine.process.pid):
            for connection in process.net_connections("inet"):
                assert connection.laddr.ip in {"127.0.0.1", "::1"}, (process.cmdline(), connection)
        assert foreign_connections(group.engine.process.pid) == []
