"""What the demo asks of a fleet, and what came back."""

from __future__ import annotations

import asyncio
import uuid
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from thunderserve.cli.openai_http import stream_events
from thunderserve.client import Generation
from thunderserve.core.errors import ThunderServeError
from thunderserve.core.request import DecodeLeg, SamplingParams, WireMode
from thunderserve.runtime.channel import open_channel
from thunderserve.runtime.worker_legs import WorkerLegs

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from thunderserve.client import AsyncClient

__all__ = ["Figures", "Traffic", "ask_http", "ask_sdk", "colocated_answer", "keep_asking"]

REFERENCE_TIMEOUT_S = 120.0

Tokens = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Figures:
    """One line of the demo's table."""

    through: str
    wire: str
    prompt_tokens: int
    output_tokens: int
    ttft_s: float
    tpot_s: float
    pair: str
    raw_bytes: int
    wire_bytes: int
    exposed_s: float


async def ask_http(
    address: str, path: str, body: dict[str, Any], show: Callable[[str], None]
) -> Figures:
    """Stream one answer through the OpenAI API; `show` gets its text as it arrives."""

    def read() -> Figures:
        last: dict[str, Any] = {}
        for event in stream_events(
            address, path, body | {"stream_options": {"include_usage": True}}
        ):
            for choice in event["choices"]:
                show(choice.get("text") or choice.get("delta", {}).get("content") or "")
            last = event
        usage, ours = last["usage"], last["thunderserve"]
        return Figures(
            "OpenAI chat" if "chat" in path else "OpenAI",
            str(body.get("kv_wire_mode", "")),
            usage["prompt_tokens"],
            usage["completion_tokens"],
            ours["ttft_s"],
            ours["tpot_s"],
            f"{ours['prefill_group']} → {ours['decode_group']}",
            ours["kv_raw_bytes"] or 0,
            ours["kv_wire_bytes"] or 0,
            ours["kv_exposed_s"] or 0.0,
        )

    return await asyncio.to_thread(read)


async def ask_sdk(
    client: AsyncClient, prompt: str, wire: WireMode, max_tokens: int, show: Callable[[str], None]
) -> Figures:
    """Stream one answer through the SDK."""
    async with client.stream(prompt, max_tokens=max_tokens, wire_mode=wire) as stream:
        async for delta in stream:
            show(delta.text)
        return _figures_of(await stream.result(), wire)


def _figures_of(generation: Generation, wire: WireMode) -> Figures:
    report = generation.report
    transfer = report.transfer
    return Figures(
        "SDK",
        str(wire),
        report.usage.prompt_tokens,
        report.usage.completion_tokens,
        report.ttft_s,
        report.tpot_s,
        f"{report.prefill_group} → {report.decode_group}",
        0 if transfer is None else transfer.raw_bytes,
        0 if transfer is None else transfer.wire_bytes,
        0.0 if transfer is None else transfer.exposed_s,
    )


async def colocated_answer(address: str, prompt: Tokens, max_tokens: int) -> Tokens:
    """What one engine answers that prefills and decodes itself."""
    sampling = SamplingParams(max_tokens=max_tokens, ignore_eos=True)
    leg = DecodeLeg(uuid.uuid4().hex, prompt, sampling, transfer=None)
    async with open_channel(address) as channel:
        chunks = WorkerLegs(channel).decode(leg, REFERENCE_TIMEOUT_S)
        return tuple([token async for chunk in chunks for token in chunk.token_ids])


@dataclass(slots=True)
class Traffic:
    """What came of the requests that ran while something else happened; one owner."""

    answers: list[tuple[Tokens, Generation]] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    _ended: asyncio.Event = field(default_factory=asyncio.Event)

    def note_answer(self, prompt: Tokens, answer: Generation) -> None:
        """A request was answered."""
        self.answers.append((prompt, answer))
        self._ended.set()

    def note_failure(self, failure: str) -> None:
        """A request failed."""
        self.failures.append(failure)
        self._ended.set()

    async def wait_more_answers(self, count: int, timeout_s: float) -> None:
        """Wait until so many more requests are answered, or one failed."""
        wanted = len(self.answers) + count
        async with asyncio.timeout(timeout_s):
            while len(self.answers) < wanted and not self.failures:
                self._ended.clear()
                await self._ended.wait()


async def keep_asking(
    client: AsyncClient,
    prompts: Sequence[Tokens],
    *,
    max_tokens: int,
    wire: WireMode,
    stopping: asyncio.Event,
    traffic: Traffic,
) -> None:
    """Send one request after another until `stopping`, and note what came of each."""
    number = 0
    while not stopping.is_set():
        prompt = prompts[number % len(prompts)]
        number += 1
        try:
            answer = await client.generate(
                token_ids=prompt, max_tokens=max_tokens, wire_mode=wire, ignore_eos=True
            )
        except ThunderServeError as error:
            traffic.note_failure(f"{type(error).__name__}: {error}")
        else:
            traffic.note_answer(prompt, answer)
