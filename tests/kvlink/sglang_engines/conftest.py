"""Two real SGLang engines on this CPU, a sidecar each, and an aggregated engine as the judge."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio
from gate import Gate
from identities import issue
from sure_model import float16_and_untied, sure_prompt_of

from thunderserve.demo_model import model_path
from thunderserve.kvlink.local_client import LocalClient

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from thunderserve.core.request import TransferReport, WireMode

# Three engines start at once: a quarter of a minute on two idle cores, far more on busy ones.
START_TIMEOUT_S = 300
HOST = Path(__file__).with_name("host.py")
MAX_TOKENS = 16


def prompt_of(length: int) -> list[int]:
    """Token ids without pattern, the same at every run."""
    return [3 + (length * 7919 + place * place * 31) % 4000 for place in range(length)]


class EngineProcess:
    """An engine in a process of its own; see `host.py`."""

    def __init__(
        self,
        model: Path,
        socket_path: str,
        phase: str,
        degrees: tuple[int, int] = (1, 1),
        batch: int = 1,
    ) -> None:
        tp, pp = degrees
        # A batch of one: in larger ones rounding alone makes other tokens.
        self._arguments = (str(model), socket_path, phase, str(tp), str(pp), str(batch))
        self._answers: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._first: dict[int, asyncio.Future[int]] = {}
        self._count = 0

    async def start(self) -> None:
        """Wait until it serves."""
        self.process = await asyncio.create_subprocess_exec(
            sys.executable,
            str(HOST),
            *self._arguments,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
        )
        ready = self._answers[0] = asyncio.get_running_loop().create_future()
        self._reading = asyncio.create_task(self._read())
        answer = await asyncio.wait_for(ready, START_TIMEOUT_S)
        assert answer.get("result") == "ready", answer

    def ask(self, do: str, **fields: Any) -> tuple[int, asyncio.Future[dict[str, Any]]]:
        """Its number, and its answer to come."""
        self._count += 1
        self._first[self._count] = asyncio.get_running_loop().create_future()
        answer = self._answers[self._count] = asyncio.get_running_loop().create_future()
        assert self.process.stdin is not None
        line = json.dumps({"id": self._count, "do": do, **fields})
        self.process.stdin.write(line.encode() + b"\n")
        return self._count, answer

    async def do(self, do: str, **fields: Any) -> Any:
        """The result; fails the test on an error."""
        answer = await self.ask(do, **fields)[1]
        assert "result" in answer, answer
        return answer["result"]

    async def switch(self, phase: str) -> Any:
        """Change the phase; SGLang may call itself busy for a moment after its last answer."""
        async with asyncio.timeout(30):
            while True:
                answer = await self.ask("switch", phase=phase)[1]
                if "EngineBusyError" not in answer.get("error", ""):
                    assert "result" in answer, answer
                    return answer["result"]

    async def first_token(self, number: int) -> int:
        """Of a prefill leg, as soon as it is known."""
        return await asyncio.wait_for(self._first[number], 60)

    async def stop(self) -> None:
        """End it; kill it when it does not."""
        with contextlib.suppress(TimeoutError, ProcessLookupError):
            self.ask("stop")
            await asyncio.wait_for(self.process.wait(), 30)
        if self.process.returncode is None:
            self.process.kill()
            await self.process.wait()
        await self._reading

    async def _read(self) -> None:
        assert self.process.stdout is not None
        while line := await self.process.stdout.readline():
            if not line.startswith(b"{"):
                continue  # SGLang prints as well
            answer = json.loads(line)
            if "first" in answer:
                self._first[answer["id"]].set_result(answer["first"])
            else:
                waiting = self._answers.pop(answer["id"])
                if not waiting.done():
                    waiting.set_result(answer)
        for waiting in self._answers.values():
            if not waiting.done():
                waiting.set_result({"error": "the engine's process ended"})


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
    engine = EngineProcess(model, settings["engine_socket"], phase, degrees, batch)
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
        judge = EngineProcess(model, "", "COLOCATED", decode)
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
        pytest.param((TP2, PP2), id="tp2-to-pp2"),
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
