"""What clients get from a running fleet."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

import openai
import pytest

from thunderserve.cli.demo_checks import identical_ratio
from thunderserve.cli.demo_traffic import colocated_answer
from thunderserve.client import AsyncClient, FinishReason, Message, WireMode
from thunderserve.demo_model import MODEL_NAME

if TYPE_CHECKING:
    from collections.abc import Callable

    from conftest import Fleet  # type: ignore[import-not-found]  # pytest's own path

# Whichever test comes first waits for the fleet.
pytestmark = [pytest.mark.sglang, pytest.mark.etcd, pytest.mark.timeout(300)]

COMPARED_TOKENS = 24
QUESTION = "Write a function that adds two numbers."


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_curl_streams_chat_completion(fleet: Fleet) -> None:
    """Server-sent events, one chunk after another, then [DONE]."""
    body = {
        "model": MODEL_NAME,
        "stream": True,
        "max_tokens": 12,
        "messages": [{"role": "user", "content": QUESTION}],
    }
    url = f"{fleet.http}/v1/chat/completions"
    command = ["curl", "-sSN", "--fail-with-body", url, "-d", json.dumps(body)]

    out = subprocess.run(
        [*command, "-H", "content-type: application/json"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout

    events = [line.removeprefix("data: ") for line in out.splitlines() if line]
    assert events[-1] == "[DONE]"
    chunks = [json.loads(event) for event in events[:-1]]
    texts = [chunk["choices"][0]["delta"].get("content", "") for chunk in chunks]
    assert sum(bool(text) for text in texts) > 1
    assert chunks[-1]["choices"][0]["finish_reason"] in {"length", "stop"}


def test_openai_client_streams_chat_completion(fleet: Fleet) -> None:
    """The official client reads chunks and usage, and the text is the SDK's."""
    with openai.OpenAI(base_url=f"{fleet.http}/v1", api_key="none") as client:
        chunks = list(
            client.chat.completions.create(
                model=MODEL_NAME,
                messages=[{"role": "user", "content": QUESTION}],
                max_tokens=12,
                temperature=0,
                stream=True,
                stream_options={"include_usage": True},
            )
        )
        models = [model.id for model in client.models.list()]

    assert models == [MODEL_NAME]
    usage = chunks[-1].usage
    assert usage is not None
    assert 0 < usage.completion_tokens <= 12
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == asyncio.run(_sdk_answer(fleet))


async def _sdk_answer(fleet: Fleet) -> str:
    async with AsyncClient(fleet.router) as client:
        answer = await client.generate(messages=[Message("user", QUESTION)], max_tokens=12)
    return answer.text


async def test_sdk_reports_pair_times_and_bytes(fleet: Fleet) -> None:
    """4 bits on the wire take less than a third of the bytes."""
    async with AsyncClient(fleet.router) as client:
        answer = await client.generate(
            "def read_lines(path):\n" * 20, max_tokens=8, ignore_eos=True, wire_mode=WireMode.INT4
        )

    report = answer.report
    assert answer.finish_reason is FinishReason.LENGTH
    assert len(answer.token_ids) == report.usage.completion_tokens == 8
    assert report.prefill_group == "g0"
    assert report.decode_group in {"g1", "g2"}
    assert 0 < report.ttft_s <= report.total_s
    assert report.transfer is not None
    # Keys and values of 8 layers, 2 heads of 64 values of 2 bytes each.
    assert report.transfer.raw_bytes >= report.usage.prompt_tokens * 8 * 2 * 2 * 64 * 2
    assert report.transfer.wire_bytes < report.transfer.raw_bytes / 3


async def test_raw16_equals_colocated_engine_and_int4_is_measured(
    fleet: Fleet,
    prompts: tuple[tuple[int, ...], ...],
    record_property: Callable[[str, object], None],
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Greedy tokens are identical with 16 bits on the wire; with 4 bits the share is told."""
    different, ratios = [], []
    async with AsyncClient(fleet.router) as client:
        for prompt in prompts:
            expected = await colocated_answer(fleet.reference, prompt, COMPARED_TOKENS)
            for wire in (WireMode.RAW16, WireMode.INT4):
                answer = await client.generate(
                    token_ids=prompt, max_tokens=COMPARED_TOKENS, ignore_eos=True, wire_mode=wire
                )
                assert len(answer.token_ids) == COMPARED_TOKENS
                if wire is WireMode.INT4:
                    ratios.append(identical_ratio(answer.token_ids, expected))
                elif answer.token_ids != expected:
                    different.append(len(prompt))

    share = sum(ratios) / len(ratios)
    record_property("int4_identical_ratio", share)
    with capsys.disabled():
        sys.stdout.write(
            f"\nint4: {share:.1%} of tokens identical, {ratios.count(1.0)} of 20 answers whole\n"
        )
    assert different == []
    assert share > 0


async def test_dispatch_follows_weights_of_applied_plan(fleet: Fleet) -> None:
    """100 requests over routes of 0.3 and 0.7 go 30 and 70 times, within 2."""
    plan = await asyncio.to_thread(fleet.thunderctl, "get", "plan")
    plan["routes"] = [
        {"prefill": "g0", "decode": "g1", "weight": 0.3},
        {"prefill": "g0", "decode": "g2", "weight": 0.7},
    ]
    applied = await asyncio.to_thread(
        lambda: fleet.thunderctl("plan", "apply", "-", stdin=json.dumps(plan))
    )
    async with AsyncClient(fleet.router) as client:
        await _until_epoch(client, applied["epoch"])
        before = await _counts(client)
        limit = asyncio.Semaphore(8)

        async def ask(number: int) -> None:
            async with limit:
                await client.generate(token_ids=[5, 6, 7 + number], max_tokens=2, ignore_eos=True)

        await asyncio.gather(*(ask(number) for number in range(100)))
        after = await _counts(client)

    assert abs(after["g1"] - before["g1"] - 30) <= 2
    assert abs(after["g2"] - before["g2"] - 70) <= 2


async def _until_epoch(client: AsyncClient, epoch: int) -> None:
    async with asyncio.timeout(10):
        while (await client.status()).plan_epoch < epoch:  # noqa: ASYNC110 - another process
            await asyncio.sleep(0.05)


async def _counts(client: AsyncClient) -> dict[str, int]:
    counts = dict.fromkeys(("g1", "g2"), 0)
    for count in (await client.status()).route_counts:
        counts[count.decode] += count.dispatched
    return counts
