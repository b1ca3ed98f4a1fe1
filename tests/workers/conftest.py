"""Real worker and sidecar processes on free loopback ports."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import grpc
import psutil
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from identities import issue

from thunderserve import demo_model
from thunderserve.api.worker.v1 import worker_pb2, worker_pb2_grpc
from thunderserve.core.request import (
    DecodeLeg,
    PrefillLeg,
    SamplingParams,
    TransferTicket,
    WireMode,
)
from thunderserve.runtime.channel import open_channel
from thunderserve.runtime.worker_legs import WorkerLegs

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from thunderserve.core.request import TokenChunk

LEG_TIMEOUT_S = 60.0


class ServiceProcess:
    """One `python -m thunderserve.<service>`, its log in a file."""

    def __init__(self, service: str, address: str, log: Path, settings: dict[str, str]) -> None:
        self.address, self.log = address, log
        arguments = [
            part for key, value in settings.items() for part in ("--set", f"{key}={value}")
        ]
        with log.open("wb") as sink:
            self.process = subprocess.Popen(
                [sys.executable, "-m", f"thunderserve.{service}", *arguments],
                stdout=sink,
                stderr=sink,
                # Its folder, so that a core dump or a stray file lands there.
                cwd=log.parent,
            )

    async def wait_serving(self, timeout_s: float) -> None:
        """Until its health service says SERVING; fails with its log when it ends before."""
        async with open_channel(self.address) as channel:
            stub = health_pb2_grpc.HealthStub(channel)
            deadline = time.monotonic() + timeout_s
            while time.monotonic() < deadline:
                assert self.process.poll() is None, self.log.read_text()
                try:
                    answer = await stub.Check(health_pb2.HealthCheckRequest(), timeout=1)
                except grpc.aio.AioRpcError:
                    await asyncio.sleep(0.05)
                    continue
                if answer.status == health_pb2.HealthCheckResponse.SERVING:
                    return
        pytest.fail(f"not serving after {timeout_s} s:\n{self.log.read_text()}")

    def children(self) -> list[psutil.Process]:
        """Its child processes."""
        return psutil.Process(self.process.pid).children()

    def stop(self, number: int = signal.SIGTERM, timeout_s: float = 20.0) -> int:
        """Signal it and return its exit status."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.wait(timeout_s)

    def wait(self, timeout_s: float) -> int:
        """Its exit status."""
        try:
            return self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise


class WorkerClient:
    """Legs and the worker's service over one channel."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self.legs = WorkerLegs(channel)
        self.stub = worker_pb2_grpc.WorkerServiceStub(channel)

    async def status(self) -> worker_pb2.WorkerStatus:
        return await self.stub.GetWorkerStatus(worker_pb2.GetWorkerStatusRequest(), timeout=5)

    async def tokens(self, leg: DecodeLeg) -> list[int]:
        return [token async for chunk in self.chunks(leg) for token in chunk.token_ids]

    def chunks(self, leg: DecodeLeg) -> AsyncIterator[TokenChunk]:
        return self.legs.decode(leg, LEG_TIMEOUT_S)

    async def until(self, condition: Callable[[worker_pb2.WorkerStatus], bool]) -> float:
        """Seconds until the worker's status meets the condition; at most 10."""
        started = time.monotonic()
        async with asyncio.timeout(10):
            while not condition(await self.status()):  # noqa: ASYNC110 - another process
                await asyncio.sleep(0.01)
        return time.monotonic() - started

    async def cancel_after_first(self, leg: DecodeLeg) -> None:
        """Read one chunk, then go away."""
        async with aclosing(self.chunks(leg)) as chunks:  # type: ignore[type-var]  # it is a generator
            await anext(chunks)


@dataclass(frozen=True)
class Launch:
    """Starts services and ends them with the test."""

    folder: Path
    free_port: Callable[[], int]
    started: list[ServiceProcess]

    def worker(self, service: str = "decode", **settings: str) -> ServiceProcess:
        """A worker that speaks to no control plane, unless `settings` says otherwise."""
        name = f"g{len(self.started)}"
        address = f"127.0.0.1:{self.free_port()}"
        defaults = {
            "address": address,
            "group_id": name,
            "node_id": "n0",
            "gpus": f"n0/{len(self.started)}:CPU",
            "model_name": demo_model.MODEL_NAME,
            "model_path": str(demo_model.model_path()),
            "device": "cpu",
            "max_total_tokens": "8192",
            "max_running_requests": "8",
        }
        return self._start(service, address, defaults | settings)

    def emulated(self, service: str = "decode", **settings: str) -> ServiceProcess:
        """A worker with the emulated engine."""
        fast = {"engine": "emulated", "emulated_prefill_s_per_token": "0"}
        return self.worker(service, **(fast | {"emulated_decode_s_per_step": "0.001"} | settings))

    def sidecar(self) -> tuple[ServiceProcess, dict[str, str]]:
        """A kvlink sidecar, and the settings by which a worker finds it."""
        name = self.folder / f"k{len(self.started)}"
        address = f"127.0.0.1:{self.free_port()}"
        settings = {
            "address": address,
            "local_address": f"unix:{name}.local",
            "engine_socket": f"{name}.engine",
            "identity": str(issue(Path(f"{name}.identity"))),
        }
        process = self._start("kvlink", settings["local_address"], settings)
        return process, {
            "kvlink_local_address": settings["local_address"],
            "kvlink_engine_socket": settings["engine_socket"],
            "kvlink_advertised_address": address,
        }

    def _start(self, service: str, address: str, settings: dict[str, str]) -> ServiceProcess:
        log = self.folder / f"{service}{len(self.started)}.log"
        process = ServiceProcess(service, address, log, settings)
        self.started.append(process)
        return process


@pytest.fixture
def launch(
    tmp_path_factory: pytest.TempPathFactory, free_port: Callable[[], int]
) -> Iterator[Launch]:
    launch = Launch(tmp_path_factory.mktemp("w"), free_port, [])
    yield launch
    for process in reversed(launch.started):
        process.stop()


class Connect:
    """Opens clients, and closes them with the test."""

    def __init__(self) -> None:
        self.channels: list[grpc.aio.Channel] = []

    def __call__(self, process: ServiceProcess) -> WorkerClient:
        self.channels.append(open_channel(process.address))
        return WorkerClient(self.channels[-1])


@pytest.fixture
async def connect() -> AsyncIterator[Connect]:
    connect = Connect()
    yield connect
    for channel in connect.channels:
        await channel.close()


class Requests:
    """Makes legs."""

    def decode(
        self, prompt: tuple[int, ...], max_tokens: int = 8, ticket: TransferTicket | None = None
    ) -> DecodeLeg:
        sampling = SamplingParams(max_tokens=max_tokens, ignore_eos=True)
        return DecodeLeg("r", prompt, sampling, ticket)

    def prefill(self, prompt: tuple[int, ...], ticket: TransferTicket) -> PrefillLeg:
        return PrefillLeg("r", prompt, SamplingParams(max_tokens=8), ticket)

    def ticket(self, room: int, address: str, mode: WireMode = WireMode.RAW16) -> TransferTicket:
        return TransferTicket(room, address, mode)


@pytest.fixture
def requests() -> Requests:
    return Requests()
