"""A request runs both legs at once, goes on elsewhere after a loss, and shows no token twice."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import TYPE_CHECKING

import pytest
from dispatch_jobs import PROMPT, job, tokens_of
from fake_workers import RAW_BYTES, WIRE_BYTES, Behaviour, answer_tokens, plan_of

from thunderserve.core.errors import (
    DeadlineError,
    UnavailableError,
)
from thunderserve.core.plan import Phase
from thunderserve.core.request import FinishReason, TokenChunk, WireMode

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from conftest import RouterUnderTest

    Until = Callable[[Callable[[], bool]], Awaitable[None]]


async def test_dispatch_runs_both_legs_with_one_ticket(router: RouterUnderTest) -> None:
    """The legs share a fresh room, the prefill side's sidecar, the wire mode and the epoch."""
    await router.serve_pairs(prefill={"p0": None}, decode={"d0": None})

    answer = router.dispatcher.start(job())
    tokens = await tokens_of(answer)

    (prefill,) = router.fleet.workers["p0"].prefill_legs
    (decode,) = router.fleet.workers["d0"].decode_legs
    assert tokens == answer_tokens(PROMPT, 6)
    assert prefill.transfer == decode.transfer
    assert prefill.transfer.room > 0
    assert prefill.transfer.prefill_kvlink_address == "kvlink-of-p0:1"
    assert WireMode.RAW16.name in str(prefill.transfer)
    assert prefill.plan_epoch == decode.plan_epoch == 1


async def test_dispatch_shows_the_first_token_when_decode_has_not_begun(
    router: RouterUnderTest, until: Until
) -> None:
    """TTFT is the prefill leg's; the rest follows once decode runs."""
    gate = asyncio.Event()
    await router.serve_pairs(prefill={"p0": None}, decode={"d0": Behaviour(decode_gate=gate)})

    async with aclosing(router.dispatcher.start(job()).chunks()) as chunks:
        first = await anext(chunks)
        await until(lambda: router.fleet.workers["d0"].running == 1)
        gate.set()
        rest = [token async for chunk in chunks for token in chunk.token_ids]

    assert [*first.token_ids, *rest] == answer_tokens(PROMPT, 6)


async def test_report_has_times_and_bytes_when_the_answer_is_complete(
    router: RouterUnderTest,
) -> None:
    """TTFT, TPOT over the tokens after the first, usage, groups, and the KV's bytes."""
    await router.serve_pairs(prefill={"p0": None}, decode={"d0": None})
    answer = router.dispatcher.start(job())
    await tokens_of(answer)

    report = answer.report()

    assert report.transfer is not None
    assert (report.transfer.raw_bytes, report.transfer.wire_bytes) == (RAW_BYTES, WIRE_BYTES)
    assert (report.usage.prompt_tokens, report.usage.completion_tokens) == (3, 6)
    assert 0 < report.ttft_s <= report.total_s
    assert report.tpot_s == pytest.approx((report.total_s - report.ttft_s) / 5)
    assert (report.prefill_group, report.decode_group, report.plan_epoch) == ("p0", "d0", 1)
    assert report.retries == 0


async def test_dispatch_uses_the_decode_leg_alone_when_the_route_is_colocated(
    router: RouterUnderTest,
) -> None:
    """Nothing is transferred, so there is no ticket and no report of it."""
    await router.fleet.add("c0", Phase.COLOCATED)
    router.follow(plan_of(("c0", "c0", 1.0)))

    answer = router.dispatcher.start(job())

    assert await tokens_of(answer) == answer_tokens(PROMPT, 6)
    assert not router.fleet.workers["c0"].prefill_legs
    assert not router.fleet.workers["c0"].decode_legs[0].HasField("transfer")
    assert answer.report().transfer is None


async def test_dispatch_goes_on_elsewhere_when_decode_dies_in_the_middle(
    router: RouterUnderTest,
) -> None:
    """From prompt and tokens so far: nothing twice, nothing lost, no more tokens than asked."""
    dies = Behaviour(decode_error=UnavailableError("died"), decode_tokens_before_error=3)
    await router.serve_pairs(prefill={"p0": None}, decode={"d0": dies, "d1": None})

    answers = [router.dispatcher.start(job()) for _ in range(2)]
    results = [await tokens_of(answer) for answer in answers]

    assert results == [answer_tokens(PROMPT, 6)] * 2
    assert router.dispatcher.statistics().continuations == 1
    (continued,) = [
        leg for leg in router.fleet.workers["d1"].decode_legs if len(leg.prompt_token_ids) > 3
    ]
    assert list(continued.prompt_token_ids) == [*PROMPT, *answer_tokens(PROMPT, 3)]
    assert continued.sampling.max_tokens == 3
    assert all(answer.report().usage.prompt_tokens == 3 for answer in answers)


async def test_dispatch_goes_on_elsewhere_when_decode_ends_without_a_reason(
    router: RouterUnderTest,
) -> None:
    """A truncated stream is a failure, not an answer."""
    await router.serve_pairs(
        prefill={"p0": None}, decode={"d0": Behaviour(decode_ends_after=2), "d1": None}
    )

    results = [await tokens_of(router.dispatcher.start(job())) for _ in range(2)]

    assert results == [answer_tokens(PROMPT, 6)] * 2


async def test_dispatch_ends_with_the_error_when_no_pair_can_go_on(router: RouterUnderTest) -> None:
    """Tokens that were shown stay shown; then comes an error, not a silent end."""
    dies = Behaviour(decode_error=UnavailableError("died"), decode_tokens_before_error=3)
    await router.serve_pairs(prefill={"p0": None}, decode={"d0": dies})
    shown: list[int] = []

    async def read() -> None:
        async for chunk in router.dispatcher.start(job()).chunks():
            shown.extend(chunk.token_ids)

    with pytest.raises(UnavailableError, match=r"1 tried; the last: group d0: died"):
        await read()

    assert shown == answer_tokens(PROMPT, 3)


@pytest.mark.parametrize(
    ("end", "max_tokens", "reason"),
    [
        (frozenset(), 3, FinishReason.LENGTH),
        (frozenset(answer_tokens(PROMPT, 3)[2:]), 9, FinishReason.STOP),
    ],
)
async def test_dispatch_finishes_when_only_the_end_of_the_answer_was_lost(
    router: RouterUnderTest, end: frozenset[int], max_tokens: int, reason: FinishReason
) -> None:
    """All tokens are there, so nothing is asked of another pair."""
    await router.serve_pairs(
        prefill={"p0": None}, decode={"d0": Behaviour(decode_ends_after=3, loses_end=True)}
    )

    chunks = [c async for c in router.dispatcher.start(job(max_tokens, end=end)).chunks()]

    assert [t for c in chunks for t in c.token_ids] == answer_tokens(PROMPT, 3)
    assert chunks[-1].finish_reason is reason


async def test_dispatch_cancels_both_legs_when_the_reader_leaves(
    router: RouterUnderTest, until: Until
) -> None:
    """Within a second, in the middle of an answer."""
    slow = Behaviour(token_gate=asyncio.Semaphore(0))
    await router.serve_pairs(prefill={"p0": None}, decode={"d0": slow})

    async with aclosing(router.dispatcher.start(job()).chunks()) as chunks:
        await anext(chunks)
        await until(lambda: router.fleet.workers["d0"].running == 1)

    await until(lambda: router.fleet.workers["d0"].running == 0)
    assert router.fleet.workers["d0"].cancelled == 1


async def test_dispatch_ends_in_time_when_a_worker_hangs(
    router: RouterUnderTest, until: Until
) -> None:
    """The client's deadline holds on both legs."""
    hangs = Behaviour(prefill_gate=asyncio.Event())
    await router.serve_pairs(prefill={"p0": hangs}, decode={"d0": None})

    with pytest.raises(DeadlineError):
        await tokens_of(router.dispatcher.start(job(timeout_s=0.2)))

    await until(lambda: not any(w.running for w in router.fleet.workers.values()))


async def test_dispatch_goes_on_when_prefill_dies_after_decode_began(
    router: RouterUnderTest, until: Until
) -> None:
    """The KV cache has arrived; prefill is needed no more."""
    steps = asyncio.Semaphore(1)
    reports_never = Behaviour(report_gate=asyncio.Event())
    await router.serve_pairs(
        prefill={"p0": reports_never}, decode={"d0": Behaviour(token_gate=steps)}
    )
    answer = router.dispatcher.start(job())

    async with aclosing(answer.chunks()) as chunks:
        first = TokenChunk((*(await anext(chunks)).token_ids, *(await anext(chunks)).token_ids))
        assert router.fleet.workers["p0"].running == 1
        await router.fleet.workers["p0"].kill()
        await until(lambda: router.fleet.workers["p0"].running == 0)
        for _ in range(6):
            steps.release()
        rest = [token async for chunk in chunks for token in chunk.token_ids]

    assert [*first.token_ids, *rest] == answer_tokens(PROMPT, 6)
    assert answer.report().retries == 0


async def test_requests_go_on_when_their_worker_leaves_the_plan(
    router: RouterUnderTest, until: Until
) -> None:
    """A drained group finishes what it has; new requests go elsewhere."""
    steps = asyncio.Semaphore(0)
    await router.serve_pairs(prefill={"p0": None}, decode={"d0": Behaviour(token_gate=steps)})
    answer = router.dispatcher.start(job())

    async with aclosing(answer.chunks()) as chunks:
        first = await anext(chunks)
        await until(lambda: router.fleet.workers["d0"].running == 1)
        router.clients.keep([])
        for _ in range(6):
            steps.release()
        rest = [token async for chunk in chunks for token in chunk.token_ids]

    assert [*first.token_ids, *rest] == answer_tokens(PROMPT, 6)
    assert answer.report().retries == 0


async def test_no_task_is_left_when_requests_have_ended(router: RouterUnderTest) -> None:
    """Whichever way they ended."""
    fails = Behaviour(prefill_error=UnavailableError("no"))
    await router.serve_pairs(prefill={"p0": fails, "p1": None}, decode={"d0": None})
    before = {task.get_name() for task in asyncio.all_tasks() if "Attempt" in repr(task)}

    await asyncio.gather(*(tokens_of(router.dispatcher.start(job())) for _ in range(8)))

    after = {task.get_name() for task in asyncio.all_tasks() if "Attempt" in repr(task)}
    assert before == after == set()
