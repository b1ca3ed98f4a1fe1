"""What the demo claims of a running fleet: exact answers, and a flip that nobody notices."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

from thunderserve.cli.demo_prompts import exactness_prompts, tokenizer_of
from thunderserve.cli.demo_traffic import Tokens, Traffic, colocated_answer, keep_asking
from thunderserve.console.views import flips_table, routes_table
from thunderserve.core.errors import UnavailableError
from thunderserve.core.fleet import FlipStep
from thunderserve.core.plan import Phase
from thunderserve.core.request import WireMode

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from thunderserve.cli.demo_story import Story
    from thunderserve.client import AsyncClient, ControlClient
    from thunderserve.core.fleet import GroupStatus

__all__ = ["Agreement", "check_exactness", "check_flip", "identical_ratio"]

COMPARED_TOKENS = 32
ASKERS = 2
# Requests that are answered before the flip, and again after it.
ANSWERS_AROUND = 6
TRAFFIC_TIMEOUT_S = 60.0
DRAIN_TIMEOUT_S = 30.0


@dataclass(frozen=True, slots=True)
class Agreement:
    """How far answers agree with the colocated engine's."""

    prompts: int
    equal: int
    identical_ratio: float


def identical_ratio(answer: Tokens, reference: Tokens) -> float:
    """Share of the reference's tokens that the answer has before it first departs."""
    same = 0
    for ours, theirs in zip(answer, reference, strict=False):
        if ours != theirs:
            break
        same += 1
    return same / len(reference)


async def check_exactness(story: Story, client: AsyncClient, reference: str, model: Path) -> None:
    """Greedy answers with 16 bits on the wire equal one engine's; with 4 bits, most tokens do."""
    prompts = exactness_prompts(tokenizer_of(model))
    # One request at a time: in a batch of another size the CPU's kernels round otherwise.
    expected = [await colocated_answer(reference, prompt, COMPARED_TOKENS) for prompt in prompts]
    exact = await _agreement(client, prompts, expected, WireMode.RAW16)
    story.check(
        holds=exact.equal == exact.prompts,
        claim=f"raw16: the answers to all {exact.prompts} prompts, {min(map(len, prompts))} to "
        f"{max(map(len, prompts))} tokens long, equal the colocated engine's",
        otherwise=f"{exact.equal} do",
    )
    small = await _agreement(client, prompts, expected, WireMode.INT4)
    story.say(
        f"int4:   {small.equal} of {small.prompts} answers are equal; "
        f"{small.identical_ratio:.0%} of all tokens come before an answer's first difference"
    )


async def _agreement(
    client: AsyncClient, prompts: tuple[Tokens, ...], expected: list[Tokens], wire: WireMode
) -> Agreement:
    ratios = []
    for prompt, reference in zip(prompts, expected, strict=True):
        answer = await client.generate(
            token_ids=prompt, max_tokens=COMPARED_TOKENS, ignore_eos=True, wire_mode=wire
        )
        ratios.append(
            identical_ratio(answer.token_ids, reference)
            if len(answer.token_ids) == len(reference)
            else 0.0
        )
    return Agreement(len(ratios), ratios.count(1.0), sum(ratios) / len(ratios))


async def check_flip(
    story: Story,
    client: AsyncClient,
    control: ControlClient,
    *,
    group: str,
    reference: str,
    model: Path,
) -> None:
    """A decode group becomes a prefill group while requests run."""
    prompts = exactness_prompts(tokenizer_of(model), (12, 40, 90))
    expected = {p: await colocated_answer(reference, p, COMPARED_TOKENS) for p in prompts}
    before = await _status(control, group)
    traffic, stopping = Traffic(), asyncio.Event()
    askers = [
        asyncio.create_task(
            keep_asking(
                client,
                prompts,
                max_tokens=COMPARED_TOKENS,
                wire=WireMode.RAW16,
                stopping=stopping,
                traffic=traffic,
            )
        )
        for _ in range(ASKERS)
    ]
    try:
        await traffic.wait_more_answers(ANSWERS_AROUND, TRAFFIC_TIMEOUT_S)
        flip = await control.flip(group, Phase.PREFILL, drain_timeout_s=DRAIN_TIMEOUT_S)
        await traffic.wait_more_answers(ANSWERS_AROUND, TRAFFIC_TIMEOUT_S)
    finally:
        stopping.set()
        await asyncio.gather(*askers)
    after = await _status(control, group)
    story.console.print(flips_table([flip]))
    story.console.print(routes_table(await control.plan()))
    story.check(
        holds=flip.step is FlipStep.DONE,
        claim=f"{group} went from {flip.from_phase} to {flip.to_phase} in {flip.total_s:.2f} s",
        otherwise=f"{flip.step}: {flip.failure}",
    )
    _check_traffic(story, traffic, expected)
    served = sum(
        answer.report.prefill_group == group and answer.report.plan_epoch >= flip.plan_epoch
        for _, answer in traffic.answers
    )
    story.check(
        holds=served > 0,
        claim=f"{group} has prefilled {served} of the requests since",
        otherwise="the new routes lead past it",
    )
    _check_same_process(story, before, after)


def _check_traffic(story: Story, traffic: Traffic, expected: Mapping[Tokens, Tokens]) -> None:
    total = len(traffic.answers) + len(traffic.failures)
    story.check(
        holds=not traffic.failures,
        claim=f"none of the {total} requests that ran meanwhile failed",
        otherwise="; ".join(traffic.failures[:3]),
    )
    wrong = [p for p, answer in traffic.answers if answer.token_ids != expected[p]]
    story.check(
        holds=not wrong,
        claim="no answer repeats, misses or changes a token: all equal the colocated engine's",
        otherwise=f"{len(wrong)} of {total} differ",
    )


def _check_same_process(story: Story, before: GroupStatus, after: GroupStatus) -> None:
    was, now = before.heartbeat, after.heartbeat
    story.check(
        holds=was is not None
        and now is not None
        and (was.process_id, was.weight_loads) == (now.process_id, now.weight_loads)
        and now.weight_loads > 0,
        claim=f"it is still process {now.process_id if now else '?'}, which has loaded the weights "
        f"{now.weight_loads if now else '?'} time",
        otherwise=f"before: {was}, after: {now}",
    )


async def _status(control: ControlClient, group: str) -> GroupStatus:
    for status in await control.groups():
        if status.group.id == group:
            return status
    raise UnavailableError(f"control does not know group {group}")
