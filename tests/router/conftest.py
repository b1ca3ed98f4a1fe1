"""A router in this process, in front of fake workers; its HTTP server is real."""

from __future__ import annotations

import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import httpx
import openai
import pytest
from fake_workers import FakeFleet, plan_of
from hypothesis import settings

from thunderserve.core.plan import Phase
from thunderserve.demo_model import model_path
from thunderserve.router.admission import Admission
from thunderserve.router.bootstrap import new_room
from thunderserve.router.dispatch import Dispatcher
from thunderserve.router.frontend import Frontend
from thunderserve.router.http import build_app
from thunderserve.router.http_server import serve_http
from thunderserve.router.routing import RouteTable
from thunderserve.router.suspicion import Suspicion
from thunderserve.router.tokenizer import ModelTokenizer, load_tokenizer
from thunderserve.router.workers import WorkerClients
from thunderserve.router.workload_window import MemoryWindow

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from fake_workers import Behaviour

    from thunderserve.core.plan import Plan

# A busy machine is no failure.
settings.register_profile("router", deadline=None, max_examples=60, derandomize=True)
settings.load_profile("router")

MODEL = "demo"
MAX_BODY_BYTES = 100_000


class RouterUnderTest:
    """Its parts, and shorthands for what tests do to it."""

    def __init__(self, tokenizer: ModelTokenizer, fleet: FakeFleet) -> None:
        self.fleet = fleet
        self.table = RouteTable()
        self.clients = WorkerClients(drain_s=1.0)
        self.window = MemoryWindow()
        self.admission = Admission(max_in_flight=8)
        self.tokenizer = tokenizer
        self.dispatcher = Dispatcher(
            table=self.table,
            suspicion=Suspicion(5.0),
            legs_of=self.clients.legs_of,
            new_room=new_room,
            clock=time.monotonic,
            max_retries=3,
        )
        self.frontend = Frontend(
            model_name=MODEL,
            tokenizer=tokenizer,
            admission=self.admission,
            table=self.table,
            dispatcher=self.dispatcher,
            window=self.window,
            clock=time.monotonic,
            unix_clock=time.time,
            request_timeout_s=20.0,
        )
        self.url = ""

    def follow(self, plan: Plan) -> None:
        """As the plan watch would."""
        self.table.update(plan, self.fleet.live)
        self.clients.keep(self.fleet.live)

    async def serve_pairs(
        self,
        *,
        prefill: dict[str, Behaviour | None],
        decode: dict[str, Behaviour | None],
    ) -> None:
        """Start workers and route evenly over all their pairs."""
        for group_id, behaviour in prefill.items():
            await self.fleet.add(group_id, Phase.PREFILL, behaviour)
        for group_id, behaviour in decode.items():
            await self.fleet.add(group_id, Phase.DECODE, behaviour)
        share = 1 / (len(prefill) * len(decode))
        self.follow(plan_of(*((p, d, share) for p in prefill for d in decode)))


@pytest.fixture(scope="session")
def tokenizer() -> ModelTokenizer:
    return load_tokenizer(model_path())


@pytest.fixture
async def router(tokenizer: ModelTokenizer) -> AsyncIterator[RouterUnderTest]:
    """A router without a plan."""
    with TemporaryDirectory(prefix="ts-") as folder:
        fleet = FakeFleet(Path(folder))
        under_test = RouterUnderTest(tokenizer, fleet)
        yield under_test
        await under_test.clients.close()
        await fleet.close()


@pytest.fixture
async def http_router(router: RouterUnderTest) -> AsyncIterator[RouterUnderTest]:
    """The same, with its HTTP server on loopback."""
    app = build_app(router.frontend, max_body_bytes=MAX_BODY_BYTES, unix_clock=time.time)
    async with serve_http(app, "127.0.0.1:0", drain_s=1.0) as address:
        router.url = f"http://{address}"
        yield router


@pytest.fixture
async def served(http_router: RouterUnderTest) -> RouterUnderTest:
    await http_router.serve_pairs(prefill={"p0": None}, decode={"d0": None, "d1": None})
    return http_router


@pytest.fixture
async def http(http_router: RouterUnderTest) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=http_router.url, timeout=10) as client:
        yield client


@pytest.fixture
async def asgi(router: RouterUnderTest) -> AsyncIterator[httpx.AsyncClient]:
    """The application without sockets, for the many cases that only it decides."""
    await router.serve_pairs(prefill={"p0": None}, decode={"d0": None})
    app = build_app(router.frontend, max_body_bytes=MAX_BODY_BYTES, unix_clock=time.time)
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://router") as client:
        yield client


@pytest.fixture
async def sdk(http_router: RouterUnderTest) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(
        base_url=f"{http_router.url}/v1", api_key="none", max_retries=0
    ) as client:
        yield client
