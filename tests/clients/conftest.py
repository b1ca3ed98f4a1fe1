"""A fake router and a fake control plane, served by real gRPC servers in the test's process."""

from __future__ import annotations

import asyncio
import contextlib
import io
import os
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import pytest
from operated_control import FakeControl

from thunderserve.admin.main import main
from thunderserve.api.control.v1 import control_pb2_grpc
from thunderserve.api.router.v1 import router_pb2, router_pb2_grpc
from thunderserve.api.types.v1 import types_pb2
from thunderserve.cli.ports import FreePorts
from thunderserve.core.errors import ThunderServeError
from thunderserve.core.request import (
    GenerationReport,
    TransferReport,
    Usage,
    WireMode,
)
from thunderserve.runtime.rpc import serve_rpc
from thunderserve.wire.requests import generation_report_to_proto

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

REPORT = GenerationReport(
    usage=Usage(prompt_tokens=4, completion_tokens=3),
    ttft_s=0.25,
    tpot_s=0.05,
    total_s=0.35,
    prefill_group="g0",
    decode_group="g1",
    plan_epoch=7,
    transfer=TransferReport(4096, 1100, 0.01, WireMode.INT4),
    retries=0,
)


@dataclass
class FakeRouter(router_pb2_grpc.RouterServiceServicer):
    """Answers every prompt with three tokens; remembers what it was asked."""

    requests: list[router_pb2.GenerateRequest] = field(default_factory=list)
    failure: ThunderServeError | None = None
    cut_short: bool = False
    endless: bool = False
    cancelled: asyncio.Event = field(default_factory=asyncio.Event)

    async def Generate(
        self, request: router_pb2.GenerateRequest, context: Any
    ) -> AsyncIterator[router_pb2.GenerateResponse]:
        del context
        self.requests.append(request)
        if self.failure is not None:
            raise self.failure
        try:
            for token in (11, 12, 13):
                yield router_pb2.GenerateResponse(
                    request_id="r1", text=f"<{token}>", token_ids=[token]
                )
            if self.endless:
                await asyncio.sleep(60)
        except (asyncio.CancelledError, GeneratorExit):
            self.cancelled.set()
            raise
        if self.cut_short:
            return
        yield router_pb2.GenerateResponse(
            request_id="r1",
            finish_reason=types_pb2.FINISH_REASON_LENGTH,
            report=generation_report_to_proto(REPORT),
        )

    async def ListModels(self, request: Any, context: Any) -> router_pb2.ListModelsResponse:
        del request, context
        return router_pb2.ListModelsResponse(models=[router_pb2.Model(id="m", context_tokens=99)])

    async def GetRouterStatus(self, request: Any, context: Any) -> router_pb2.RouterStatus:
        del request, context
        count = router_pb2.RouteCount(prefill="g0", decode="g1", dispatch_count=3)
        return router_pb2.RouterStatus(
            plan_epoch=7, ready=True, in_flight_count=1, route_counts=[count]
        )


@pytest.fixture(scope="session")
def free_ports() -> FreePorts:
    return FreePorts()


@contextlib.asynccontextmanager
async def _served(address: str, register: Any) -> AsyncIterator[str]:
    server = await serve_rpc(address, register)
    try:
        yield address
    finally:
        await server.stop(None)


@pytest.fixture
def router() -> FakeRouter:
    return FakeRouter()


@pytest.fixture
async def router_address(router: FakeRouter, free_ports: FreePorts) -> AsyncIterator[str]:
    def register(server: Any) -> None:
        router_pb2_grpc.add_RouterServiceServicer_to_server(router, server)

    async with _served(f"127.0.0.1:{free_ports.take()}", register) as address:
        yield address


@pytest.fixture
def control() -> FakeControl:
    return FakeControl()


@pytest.fixture
async def control_address(control: FakeControl, free_ports: FreePorts) -> AsyncIterator[str]:
    def register(server: Any) -> None:
        control_pb2_grpc.add_ControlServiceServicer_to_server(control, server)

    async with _served(f"127.0.0.1:{free_ports.take()}", register) as address:
        yield address


@pytest.fixture
def nobody(free_ports: FreePorts) -> str:
    """An address at which nothing listens."""
    return f"127.0.0.1:{free_ports.take()}"


class Ended(NamedTuple):
    """How a program ended."""

    status: int
    out: str
    err: str


class Thunderctl(Protocol):
    """Run `thunderctl` with these arguments."""

    async def __call__(self, *arguments: str, stdin: str = "") -> Ended: ...


class Program(Protocol):
    """Run a program with these arguments and variables."""

    async def __call__(self, *arguments: str, **environment: str) -> Ended: ...


@pytest.fixture
def thunderctl(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Thunderctl:
    """In this process, which is quicker than `thunderctl_program`."""
    monkeypatch.setenv("NO_COLOR", "1")

    async def run(*arguments: str, stdin: str = "") -> Ended:
        monkeypatch.setattr(sys, "stdin", io.StringIO(stdin))
        status = await asyncio.to_thread(main, arguments)
        return Ended(status, *capsys.readouterr())

    return run


@pytest.fixture
def thunderctl_program() -> Program:
    """The installed program, in a process of its own."""

    async def run(*arguments: str, **environment: str) -> Ended:
        process = await asyncio.create_subprocess_exec(
            Path(sys.executable).parent / "thunderctl",
            *arguments,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=os.environ | {"NO_COLOR": "1"} | environment,
        )
        out, err = await process.communicate()
        assert process.returncode is not None
        return Ended(process.returncode, out.decode(), err.decode())

    return run
