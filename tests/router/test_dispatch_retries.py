"""A request whose pair fails before its first token finds another; the client notices nothing."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

import pytest
from dispatch_jobs import PROMPT, job, tokens_of
from fake_workers import Behaviour, answer_tokens, plan_of

from thunderserve.core.errors import (
    InvalidArgumentError,
    LegsDisagreeError,
    OverloadedError,
    PreconditionError,
    TransferError,
    UnavailableError,
)
from thunderserve.core.plan import Phase

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from conftest import RouterUnderTest

    Until = Callable[[Callable[[], bool]], Awaitable[None]]


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
