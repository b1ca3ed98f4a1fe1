"""Groups of unequal tensor and pipeline parallelism: the cache is cut anew on the way.

SGLang alone refuses these pairs: "Decode pp size should be equal to prefill pp size or 1".
"""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from thunderserve.core.request import WireMode

pytestmark = [
    pytest.mark.sglang,
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.timeout(600),  # the first test waits for three engines, most of two ranks
]
LENGTHS = (5, 64, 65, 200, 333)
MAX_TOKENS = 16


async def test_answers_are_those_of_one_engine_when_degrees_differ(unequal: Any) -> None:
    """Of the decode group's degrees; prompts of one page, of many, and of several chunks."""
    for length in LENGTHS:
        tokens, first, report = await unequal.answer(length, WireMode.RAW16)

        assert tokens == await unequal.expected(length), length
        assert first["token"] == tokens[0]
        assert report.raw_bytes == length * 8 * 2 * 2 * 64 * 2  # layers, k and v, heads, dim, bytes


async def test_answers_stay_apart_when_degrees_differ_and_many_run_at_once(unequal: Any) -> None:
    """The ranks of one engine may reach the same room in different order."""
    lengths = LENGTHS * 2

    answers = await asyncio.gather(*(unequal.answer(n, WireMode.RAW16) for n in lengths))

    for length, (tokens, first, _) in zip(lengths, answers, strict=True):
        assert tokens[0] == first["token"]
        assert tokens == await unequal.expected(length), length


async def test_answer_is_complete_and_cheaper_when_degrees_differ_and_int4(unequal: Any) -> None:
    """Each rank's heads are quantised where they are, and put together elsewhere."""
    tokens, first, report = await unequal.answer(200, WireMode.INT4)

    assert tokens[0] == first["token"] == (await unequal.expected(200))[0]
    assert len(tokens) == MAX_TOKENS
    assert report.wire_bytes * 3 < report.raw_bytes


async def test_next_request_is_served_when_many_were_cancelled_and_degrees_differ(
    unequal: Any,
) -> None:
    """Every rank lets go of the rooms, and of what it held for them."""
    prefill, decode = unequal.pair
    for _ in range(4):  # the engines hold two requests at once
        legs = await unequal.announced(64, WireMode.RAW16)
        with decode.gate.closed():
            number, cancelled = decode.engine.ask("decode", max_tokens=MAX_TOKENS, **legs)
            sending, answer = prefill.engine.ask("prefill", **legs)
            await prefill.engine.first_token(sending)
            await decode.engine.do("cancel", what=number)

            assert "cancelled" in (await cancelled)["error"]
            assert "TransferError" in (await answer)["error"]
    assert (await unequal.answer(64, WireMode.RAW16))[0] == await unequal.expected(64)


async def test_next_request_is_served_when_prefill_legs_were_cancelled_and_degrees_differ(
    unequal: Any,
) -> None:
    """At whichever point of its life each of them was."""
    prefill, decode = unequal.pair
    for moment in range(4):
        legs = await unequal.announced(333, WireMode.RAW16)
        number, cancelled = prefill.engine.ask("prefill", **legs)
        _, answer = decode.engine.ask("decode", max_tokens=MAX_TOKENS, **legs)
        if moment % 2:
            await prefill.engine.first_token(number)
        await prefill.engine.do("cancel", what=number)

        ended = await asyncio.gather(cancelled, answer)
        assert any("error" in each for each in ended) or moment % 2
    assert (await unequal.answer(64, WireMode.RAW16))[0] == await unequal.expected(64)


async def test_decode_legs_end_when_degrees_differ_and_the_prefill_group_is_away(
    unequal: Any,
) -> None:
    """All ranks of the decode engine give the requests up, and go on."""
    _, decode = unequal.pair
    for _ in range(4):
        legs = await unequal.announced(5, WireMode.RAW16) | {"peer": "127.0.0.1:9"}

        _, answer = decode.engine.ask("decode", max_tokens=MAX_TOKENS, **legs)

        assert "127.0.0.1:9" in (await answer)["error"]
    assert (await unequal.answer(65, WireMode.RAW16))[0] == await unequal.expected(65)


async def test_phases_swap_when_no_group_has_stages_and_are_refused_by_name_otherwise(
    unequal: Any,
) -> None:
    """All ranks of an engine change its phase together; with stages SGLang changes none."""
    staged = [group for group in unequal.groups if group.degrees[1] > 1]
    for group in staged:
        _, answer = group.engine.ask("switch", phase="PREFILL")
        assert "PreconditionError" in (await answer)["error"]
        assert "with pp 2" in (await answer)["error"]
    if not staged:
        await unequal.swap()
        tokens, first, _ = await unequal.answer(200, WireMode.RAW16)
        assert (tokens[0], len(tokens)) == (first["token"], MAX_TOKENS)
        await unequal.swap()
    assert (await unequal.answer(333, WireMode.RAW16))[0] == await unequal.expected(333)
