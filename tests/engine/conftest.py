"""Small models, legs, and an engine that does what a test tells it."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest

from thunderserve.core.errors import EngineFailedError, ThunderServeError
from thunderserve.core.fleet import Capabilities
from thunderserve.core.kv import KvLayout
from thunderserve.core.links import LinkMeasurement
from thunderserve.core.plan import Phase
from thunderserve.core.request import (
    DecodeLeg,
    FinishReason,
    PrefillLeg,
    SamplingParams,
    TokenChunk,
    TransferReport,
    TransferTicket,
    WireMode,
)
from thunderserve.engine.model import ModelShape

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator


REPORT = TransferReport(100, 30, 0.5, WireMode.INT4)


@dataclass
class FakeEngine:
    """Its decode leg ends when `finish` is set; `switch` raises what `switch_errors` holds."""

    flippable: bool = True
    switch_errors: list[ThunderServeError] = field(default_factory=list)
    finish: asyncio.Event = field(default_factory=asyncio.Event)
    lost: asyncio.Event = field(default_factory=asyncio.Event)
    switched: list[Phase] = field(default_factory=list)
    closed_legs: int = 0
    stops: int = 0
    weight_loads: int = 0

    @property
    def capabilities(self) -> Capabilities:
        phases = (Phase.PREFILL, Phase.DECODE)
        return Capabilities(phases, self.flippable, 1, 1, "bfloat16", 16, 2048)

    async def start(self, phase: Phase) -> None:
        del phase
        self.weight_loads += 1

    async def wait_failed(self) -> EngineFailedError:
        await self.lost.wait()
        return EngineFailedError("the scheduler ended")

    async def prefill(self, leg: PrefillLeg) -> AsyncGenerator[int, None]:
        del leg
        yield 7

    async def decode(self, leg: DecodeLeg) -> AsyncGenerator[TokenChunk, None]:
        del leg
        try:
            yield TokenChunk((7,))
            await self.finish.wait()
            yield TokenChunk((8,), FinishReason.LENGTH)
        finally:
            self.closed_legs += 1

    async def switch(self, phase: Phase) -> None:
        if self.switch_errors:
            raise self.switch_errors.pop(0)
        self.switched.append(phase)

    async def stop(self) -> None:
        self.stops += 1


@dataclass
class FakeKvLink:
    """Remembers what was announced."""

    announced: list[tuple[int, WireMode]] = field(default_factory=list)
    stuck: bool = False
    measured: tuple[LinkMeasurement, ...] = ()

    async def links(self) -> tuple[LinkMeasurement, ...]:
        return self.measured

    async def announce(self, room: int, wire_mode: WireMode) -> None:
        self.announced.append((room, wire_mode))

    async def report(self, room: int) -> TransferReport:
        assert room in [announced for announced, _ in self.announced]
        if self.stuck:
            await asyncio.Event().wait()
        return REPORT


@pytest.fixture
def engine() -> FakeEngine:
    return FakeEngine()


@pytest.fixture
def kvlink() -> FakeKvLink:
    return FakeKvLink()


@pytest.fixture
def model() -> ModelShape:
    return ModelShape(
        layers=2, kv_heads=2, head_dim=64, vocab_tokens=1000, context_tokens=64, kv_dtype="bfloat16"
    )


@pytest.fixture
def layout() -> KvLayout:
    return KvLayout("m", 2, 2, 64, 16, "bfloat16")


class Legs:
    """Makes legs of one prompt."""

    prompt = tuple(range(20, 60))

    def prefill(self, room: int = 1, prompt: tuple[int, ...] = prompt) -> PrefillLeg:
        return PrefillLeg("r", prompt, SamplingParams(max_tokens=5), self.ticket(room))

    def decode(
        self, room: int | None = 1, prompt: tuple[int, ...] = prompt, max_tokens: int = 5
    ) -> DecodeLeg:
        ticket = None if room is None else self.ticket(room)
        return DecodeLeg("r", prompt, SamplingParams(max_tokens=max_tokens), ticket)

    def ticket(self, room: int) -> TransferTicket:
        return TransferTicket(room, "127.0.0.1:1", WireMode.RAW16)


@pytest.fixture
def legs() -> Legs:
    return Legs()
