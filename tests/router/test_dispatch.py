"""A request finds its way: both legs at once, another pair when one fails, never a token twice."""

from __future__ import annotations

import asyncio
import time
from contextlib import aclosing
from typing import TYPE_CHECKING

import pytest
from fake_workers import RAW_BYTES, WIRE_BYTES, Behaviour, answer_tokens, plan_of

from thunderserve.core.errors import (
    DeadlineError,
    InvalidArgumentError,
    LegsDisagreeError,
    OverloadedError,
    PreconditionError,
    TransferError,
    UnavailableError,
)
from thunderserve.core.plan import Phase
from thunderserve.core.request import FinishReason, SamplingParams, WireMode
from thunderserve.router.job import Job

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from conftest import RouterUnderTest

    from thunderserve.router.dispatch import Answer

    Until = Callable[[Callable[[], bool]], Awaitable[None]]

PROMPT = (10, 11, 12)


def job(max_tokens: int = 6, *, timeout_s: float = 10.0, end: frozenset[int] = frozenset()) -> Job:
    return Job(
        request_id="r",
        prompt_token_ids=PROMPT,
        sampling=SamplingParams(max_tokens=max_tokens),
        wire_mode=WireMode.RAW16,
        end_token_ids=end,
        arrived_s=time.monotonic(),
        deadline_s=time.monotonic() + timeout_s,
    )


async def tokens_of(answer: Answer) -> list[int]:
    """All tokens; the last chunk, and only that, has a finish reason."""
    chunks = [chunk async for chunk in answer.chunks()]
    assert [c.finish_reason is not None for c in chunks] == [False] * (len(chunks) - 1) + [True]
    return [token for chunk in chunks for token in chunk.token_ids]


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


@pytest.mark.parametrize(
    "error",
    [
        PreconditionError("this worker is switching"),
        UnavailableError("not now"),
        TransferError("nobody took the cache"),
        OverloadedError("full"),
    ],
)
async def test_dispatch_tries_another_pair_when_prefill_fails(
    router: RouterUnderTest, until: Until, error: Exception
) -> None:
    """In a new room; the failed leg's partner is cancelled at once."""
    await router.serve_pairs(
        prefill={"p0": Behaviour(prefill_error=error), "p1": None}, decode={"d0": None, "d1": None}
    )

    answers = [router.dispatcher.start(job()) for _ in range(4)]
    results = [await tokens_of(answer) for answer in answers]

    fleet = router.fleet.workers
    assert results == [answer_tokens(PROMPT, 6)] * 4
    assert {answer.report().prefill_group for answer in answers} == {"p1"}
    assert router.dispatcher.statistics().retries == sum(a.report().retries for a in answers) >= 2
    await until(lambda: not any(worker.running for worker in fleet.values()))
    legs = [leg for worker in fleet.values() for leg in worker.prefill_legs]
    assert len({leg.transfer.room for leg in legs}) == len(legs)


async def test_dispatch_tries_another_pair_when_decode_is_killed_before_the_first_token(
    router: RouterUnderTest, until: Until
) -> None:
    """As with SIGKILL: the client notices nothing."""
    gate = asyncio.Event()
    await router.serve_pairs(
        prefill={"p0": Behaviour(prefill_gate=gate)}, decode={"d0": None, "d1": None}
    )
    answer = router.dispatcher.start(job())
    reading = asyncio.create_task(tokens_of(answer))
    decodes = [router.fleet.workers["d0"], router.fleet.workers["d1"]]
    await until(lambda: any(decode.running for decode in decodes))

    victim = next(decode for decode in decodes if decode.running)
    await victim.kill()
    gate.set()

    assert await reading == answer_tokens(PROMPT, 6)
    assert answer.report().decode_group != victim.worker.group_id
    assert answer.report().retries == 1


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


async def test_dispatch_fails_loudly_when_the_legs_disagree(
    router: RouterUnderTest, until: Until
) -> None:
    """It is counted, not retried: a wrong first token means wrong KV."""
    await router.serve_pairs(
        prefill={"p0": None},
        decode={"d0": Behaviour(disagrees=True), "d1": Behaviour(disagrees=True)},
    )

    with pytest.raises(LegsDisagreeError, match="suspect"):
        await tokens_of(router.dispatcher.start(job()))

    assert router.dispatcher.statistics().disagreements == 1
    await until(lambda: not any(w.running for w in router.fleet.workers.values()))


async def test_dispatch_does_not_retry_when_a_worker_refuses_the_request(
    router: RouterUnderTest, until: Until
) -> None:
    """The caller's mistake stays the caller's; the decode leg does not wait for it."""
    refuses = Behaviour(prefill_error=InvalidArgumentError("the prompt is odd", param="prompt"))
    await router.serve_pairs(prefill={"p0": refuses, "p1": refuses}, decode={"d0": None})

    with pytest.raises(InvalidArgumentError, match="the prompt is odd") as caught:
        await tokens_of(router.dispatcher.start(job()))

    assert caught.value.param == "prompt"
    assert router.dispatcher.statistics().retries == 0
    await until(lambda: router.fleet.workers["d0"].running == 0)


async def test_dispatch_gives_up_when_every_pair_it_may_try_failed(router: RouterUnderTest) -> None:
    """One try and three retries; each on groups not tried before."""
    fails = Behaviour(prefill_error=PreconditionError("switching"))
    await router.serve_pairs(prefill={f"p{i}": fails for i in range(6)}, decode={"d0": None})

    with pytest.raises(UnavailableError, match=r"4 tried; the last: group p\d: switching"):
        await tokens_of(router.dispatcher.start(job()))

    legs = [len(worker.prefill_legs) for worker in router.fleet.workers.values()]
    assert sorted(legs) == [0, 0, 0, 1, 1, 1, 1]


async def test_dispatch_says_overloaded_when_every_worker_is(router: RouterUnderTest) -> None:
    """Then the client is told to come back, as if this router were full."""
    await router.serve_pairs(
        prefill={"p0": Behaviour(prefill_error=OverloadedError("full", retry_after_s=3.0))},
        decode={"d0": None},
    )

    with pytest.raises(OverloadedError) as caught:
        await tokens_of(router.dispatcher.start(job()))

    assert caught.value.retry_after_s == 3.0


async def test_dispatch_avoids_a_worker_when_it_was_unreachable_a_moment_ago(
    router: RouterUnderTest,
) -> None:
    """Only the first request meets it; a later plan with a new process clears it."""
    await router.serve_pairs(prefill={"p0": None}, decode={"d0": None, "d1": None})
    await router.fleet.workers["d0"].kill()

    answers = [router.dispatcher.start(job()) for _ in range(6)]
    for answer in answers:
        assert await tokens_of(answer) == answer_tokens(PROMPT, 6)
    assert sum(answer.report().retries for answer in answers) == 1

    await router.fleet.add("d0", Phase.DECODE)
    router.follow(plan_of(("p0", "d0", 0.5), ("p0", "d1", 0.5), epoch=2))
    for _ in range(4):
        await tokens_of(router.dispatcher.start(job()))
    assert len(router.fleet.workers["d0"].decode_legs) == 2


async def test_dispatch_uses_a_suspect_when_there_is_nobody_else(router: RouterUnderTest) -> None:
    """Suspicion orders, it does not ban."""
    await router.serve_pairs(prefill={"p0": None}, decode={"d0": None})
    worker = router.fleet.workers["d0"].worker
    router.dispatcher.suspicion.suspect(worker, time.monotonic())

    assert await tokens_of(router.dispatcher.start(job())) == answer_tokens(PROMPT, 6)


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
    steps = asyncio.Semaphore(0)
    await router.serve_pairs(prefill={"p0": None}, decode={"d0": Behaviour(token_gate=steps)})
    answer = router.dispatcher.start(job())

    async with aclosing(answer.chunks()) as chunks:
        first = await anext(chunks)
        await until(lambda: router.fleet.workers["d0"].running == 1)
        await router.fleet.workers["p0"].kill()
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
