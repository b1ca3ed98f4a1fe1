"""Requests that are given up at any moment leave nothing behind in two real SGLang engines."""

from __future__ import annotations

import asyncio
import collections
import itertools
import random
from dataclasses import dataclass
from typing import Any

import psutil  # type: ignore[import-untyped]  # it ships no types
import pytest

from thunderserve.core.errors import TransferError
from thunderserve.core.request import WireMode

pytestmark = [
    pytest.mark.sglang,
    pytest.mark.soak,
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.timeout(1800),
]
REQUESTS, AT_ONCE, MAX_TOKENS = 1000, 12, 16
LENGTHS = (3, 40, 65, 150, 300)
MODES = (WireMode.RAW16, WireMode.INT4)
LONGEST_S = 60  # of a request that is not aborted, with many beside it
LATEST_ABORT_S = 0.5  # about what a request takes here with so many beside it
PREFILL, DECODE = "prefill", "decode"
BOTH = (PREFILL, DECODE)


@dataclass(frozen=True)
class Fate:
    """Which legs of a request come, which are aborted, and whether the link hangs meanwhile."""

    comes: tuple[str, ...] = BOTH
    aborted: tuple[str, ...] = ()
    link_hangs: bool = False


FATES = (
    Fate(),
    Fate(aborted=(PREFILL,)),
    Fate(aborted=(DECODE,)),
    Fate(aborted=BOTH),
    Fate(aborted=(DECODE,), link_hangs=True),
    Fate(aborted=(PREFILL,), link_hangs=True),
    Fate(comes=(PREFILL,), aborted=(PREFILL,)),
    Fate(comes=(DECODE,), aborted=(DECODE,)),
)


class Legs:
    """One request."""

    def __init__(self, fleet: Any, fate: Fate, rng: random.Random) -> None:
        self.fate = fate
        self.groups = dict(zip(BOTH, fleet.pair, strict=True))
        self._rng = rng
        self.room = 0
        self._numbers: dict[str, int] = {}
        self._answers: dict[str, asyncio.Future[dict[str, Any]]] = {}

    async def run(self, fields: dict[str, Any]) -> None:
        """Start the legs in either order, end them as it is their fate."""
        self.room = fields["room"]
        for phase in self._rng.sample(self.fate.comes, len(self.fate.comes)):
            await self.groups[phase].worker.announce(fields["room"], self._rng.choice(MODES))
            extra = {"max_tokens": MAX_TOKENS} if phase == DECODE else {}
            asked = self.groups[phase].engine.ask(phase, **fields, **extra)
            self._numbers[phase], self._answers[phase] = asked
        if not self.fate.aborted:
            return
        await asyncio.sleep(self._rng.uniform(0, LATEST_ABORT_S))
        if self.fate.link_hangs:
            with self.groups[DECODE].gate.closed():
                await asyncio.sleep(self._rng.uniform(0, 0.1))
                await self._abort()
        else:
            await self._abort()

    async def outcomes(self) -> dict[str, str]:
        """Of each leg: `finished`, or the class of its error; a leg that hangs fails the test."""
        await asyncio.wait(self._answers.values(), timeout=LONGEST_S)
        late = [phase for phase, answer in self._answers.items() if not answer.done()]
        assert not late, f"room {self.room}, {self.fate}: no answer of {late}"
        answers = {phase: answer.result() for phase, answer in self._answers.items()}
        return {
            phase: "finished" if "result" in answer else str(answer["error"]).split(":")[0]
            for phase, answer in answers.items()
        }

    async def _abort(self) -> None:
        for phase in self.fate.aborted:
            await self.groups[phase].engine.do("cancel", what=self._numbers[phase])


async def how_room_ended(group: Any, room: int) -> str:
    try:
        await asyncio.wait_for(group.worker.report(room), 30)
    except TransferError:
        return "aborted"
    return "committed"


def vitals(fleet: Any) -> list[tuple[int, float]]:
    """Descriptors and resident MB of both sidecars."""
    found = [psutil.Process(group.sidecar.pid) for group in fleet.groups]
    return [(process.num_fds(), process.memory_info().rss / 1e6) for process in found]


async def test_engines_are_as_before_when_a_thousand_requests_were_aborted_anywhere(
    busy_fleet: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    """KV cache, queues and rooms return to their baseline, on both sides; nobody hangs."""
    fleet, rng = busy_fleet, random.Random(20)  # noqa: S311 - a schedule, not a secret
    for length in LENGTHS:
        await fleet.answer(length, WireMode.RAW16)
    await asyncio.sleep(1)
    baseline, vitals_before = await fleet.usage(), vitals(fleet)
    assert [books["requests"] for books in baseline] == [0, 0]
    ended: collections.Counter[str] = collections.Counter()
    turn, rooms = asyncio.Semaphore(AT_ONCE), itertools.count(100_000)

    async def one() -> None:
        async with turn:
            legs = Legs(fleet, rng.choice(FATES), rng)
            room, prompt = next(rooms), fleet.prompt_of(rng.choice(LENGTHS))
            await legs.run({"room": room, "peer": fleet.pair[0].address, "prompt": prompt})
            outcomes = await legs.outcomes()
            for phase, outcome in outcomes.items():
                ended[f"{phase} {outcome}"] += 1
            if not legs.fate.aborted:
                assert set(outcomes.values()) == {"finished"}, outcomes
            for phase in legs.fate.comes:
                ended[f"{phase} room {await how_room_ended(legs.groups[phase], room)}"] += 1

    await asyncio.gather(*(one() for _ in range(REQUESTS)))

    await fleet.wait_usage(baseline)
    for length in LENGTHS:
        tokens, _, _ = await fleet.answer(length, WireMode.RAW16)
        assert tokens == await fleet.expected(length)
    with capsys.disabled():
        print(f"\nKV usage {baseline} -> {await fleet.usage()}; {dict(ended)}")  # noqa: T201 - the record
        print(f"sidecars, descriptors and MB: {vitals_before} -> {vitals(fleet)}")  # noqa: T201 - same
