"""Two real SGLang engines on this CPU, a sidecar each, and an aggregated engine as the judge."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio
from gate import Gate
from identities import issue
from sglang_process import EngineProcess
from sure_model import float16_and_untied, sure_prompt_of

from thunderserve.demo_model import model_path
from thunderserve.kvlink.local_client import LocalClient

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from thunderserve.core.request import TransferReport, WireMode

MAX_TOKENS = 16


def prompt_of(length: int) -> list[int]:
    """Token ids without pattern, the same at every run."""
    return [3 + (length * 7919 + place * place * 31) % 4000 for place in range(length)]


@dataclass
class Group:
    """An engine, its sidecar, and the worker's client of the sidecar."""

    engine: EngineProcess
    sidecar: asyncio.subprocess.Process
    worker: LocalClient
    address: str
    gate: Gate
    degrees: tuple[int, int]  # tp, pp


@dataclass
class Fleet:
    """Two groups that may swap their phases, and the judge."""

    groups: tuple[Group, Group]
    aggregated: EngineProcess
    prefill: int = 0
    room: int = 1000
    judged: dict[int, list[int]] = field(default_factory=dict)
    prompt_of: Callable[[int], list[int]] = prompt_of

    @property
    def pair(self) -> tuple[Group, Group]:
        """The prefill group, the decode group."""
        return self.groups[self.prefill], self.groups[1 - self.prefill]

    async def expected(self, length: int) -> list[int]:
        """What one engine that does both phases answers."""
        if length not in self.judged:
            self.judged[length] = await self.aggregated.do(
                "decode", prompt=self.prompt_of(length), max_tokens=MAX_TOKENS
            )
        return self.judged[length]

    async def announced(self, length: int, mode: WireMode) -> dict[str, Any]:
        """Fields of both legs of a new request with a prompt of `length` tokens."""
        self.room += 1
        room = self.room
        for group in self.groups:
            await group.worker.announce(room, mode)
        return {"room": room, "peer": self.pair[0].address, "prompt": self.prompt_of(length)}

    async def answer(self, length: int, mode: WireMode) -> tuple[list[int], Any, TransferReport]:
        """Decode's tokens, what the prefill leg said, what the transfer took."""
        prefill, decode = self.pair
        legs = await self.announced(length, mode)
        first, tokens = await asyncio.gather(
            prefill.engine.do("prefill", **legs),
            decode.engine.do("decode", max_tokens=MAX_TOKENS, **legs),
        )
        return tokens, first, await prefill.worker.report(legs["room"])

    async def usage(self) -> list[dict[str, int]]:
        """SGLang's own books on both sides: tokens of KV cache, and requests."""
        return [await group.engine.do("usage") for group in self.pair]

    async def wait_usage(self, wanted: list[dict[str, int]]) -> None:
        """SGLang publishes its books now and then."""
        async with asyncio.timeout(30):
            while await self.usage() != wanted:  # noqa: ASYNC110 - nobody tells
                await asyncio.sleep(0.05)

    async def swap(self) -> list[Any]:
        """Switch both groups to the other's phase."""
        prefill, decode = self.pair
        switched = await asyncio.gather(
            prefill.engine.switch("DECODE"), decode.engine.switch("PREFILL")
        )
        self.prefill = 1 - self.prefill
        return list(switched)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def start_group(
    folder: Path, model: Path, phase: str, degrees: tuple[int, int] = (1, 1), batch: int = 1
) -> Group:
    port, gate_port = free_port(), free_port()
    address = f"127.0.0.1:{gate_port}"
    gate = Gate(port)
    await gate.listen(gate_port)
    settings = {
        "address": f"127.0.0.1:{port}",
        "advertised_address": address,
        "identity": str(issue(folder / "identity")),
        "local_address": f"unix:{folder}/local",
        "engine_socket": f"{folder}/engine",
    }
    arguments = [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]
    sidecar = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "thunderserve.kvlink", "--log-level", "warning", *arguments
    )
    worker = LocalClient(settings["local_address"])
    log = folder / "engine.log"
    engine = EngineProcess(model, settings["engine_socket"], phase, degrees, batch, log=log)
    return Group(engine, sidecar, worker, address, gate, degrees)


async def stop_group(group: Group) -> None:
    await group.worker.close()
    group.sidecar.terminate()
    assert await group.sidecar.wait() == 0
    group.gate.close()


@contextlib.asynccontextmanager
async def running_fleet(
    folder: Path,
    prefill: tuple[int, int] = (1, 1),
    decode: tuple[int, int] = (1, 1),
    model: Path | None = None,
    batch: int = 1,
) -> AsyncIterator[Fleet]:
    """Two groups of the given (tp, pp) and batch, and a judge like the decode group."""
    model = model or model_path()
    async with contextlib.AsyncExitStack() as stack:
        groups = []
        for phase, degrees in (("PREFILL", prefill), ("DECODE", decode)):
            (folder / phase).mkdir()
            group = await start_group(folder / phase, model, phase, degrees, batch)
            stack.push_async_callback(stop_group, group)
            groups.append(group)
        judge = EngineProcess(model, "", "COLOCATED", decode, log=folder / "judge.log")
        fleet = Fleet((groups[0], groups[1]), judge)
        engines = (groups[0].engine, groups[1].engine, judge)
        starts = [asyncio.create_task(engine.start()) for engine in engines]
        try:
            await asyncio.gather(*starts)
            yield fleet
        finally:
            await asyncio.gather(*starts, return_exceptions=True)
            await asyncio.gather(*(engine.stop() for engine in engines))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def fleet(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Fleet]:
    async with running_fleet(tmp_path_factory.mktemp("fleet")) as fleet:
        yield fleet


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def busy_fleet(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Fleet]:
    """Eight requests in a batch."""
    async with running_fleet(tmp_path_factory.mktemp("fleet"), batch=8) as fleet:
        yield fleet


ONE, TP2, PP2 = (1, 1), (2, 1), (1, 2)  # (tp, pp)


@pytest_asyncio.fixture(
    scope="module",
    loop_scope="module",
    params=[
        pytest.param((TP2, PP2), id="tp2-to-pp2", marks=pytest.mark.layouts),
        pytest.param((ONE, TP2), id="tp1-to-tp2", marks=pytest.mark.layouts),
        pytest.param((TP2, ONE), id="tp2-to-tp1", marks=pytest.mark.layouts),
        pytest.param((ONE, PP2), id="pp1-to-pp2", marks=pytest.mark.layouts),
        pytest.param((PP2, ONE), id="pp2-to-pp1", marks=pytest.mark.layouts),
    ],
)
async def unequal(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Fleet]:
    """A prefill and a decode group of different degrees; the judge has the decode group's."""
    model = float16_and_untied(model_path(), tmp_path_factory.mktemp("model"))
    prefill, decode = request.param
    async with running_fleet(tmp_path_factory.mktemp("fleet"), prefill, decode, model) as fleet:
        fleet.prompt_of = sure_prompt_of
        yield fleet
