"""Fake workers behind real gRPC: they know no model, but they fail in every way a worker can.

A token is a pure function of the tokens before it, so an answer that was continued elsewhere can
be compared with one that was not.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from thunderserve.api.types.v1 import types_pb2
from thunderserve.api.worker.v1 import worker_pb2
from thunderserve.api.worker.v1.worker_pb2_grpc import (
    DecodeServiceServicer,
    PrefillServiceServicer,
    add_DecodeServiceServicer_to_server,
    add_PrefillServiceServicer_to_server,
)
from thunderserve.core.errors import ThunderServeError
from thunderserve.core.fleet import Capabilities, Worker
from thunderserve.core.plan import Gpu, Group, Phase, Plan, Route, Stage
from thunderserve.runtime.rpc import serve_rpc

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from pathlib import Path

    import grpc


RAW_BYTES, WIRE_BYTES = 4096, 1156
FIRST_TOKEN, TOKENS = 300, 3000


def next_token(prefix: Sequence[int]) -> int:
    """The token after these."""
    return FIRST_TOKEN + (sum(prefix) * 31 + len(prefix) * 17) % TOKENS


def answer_tokens(prompt: Sequence[int], count: int) -> list[int]:
    """What an untroubled worker answers."""
    tokens = list(prompt)
    for _ in range(count):
        tokens.append(next_token(tokens))
    return tokens[len(prompt) :]


def fake_worker_noun(group_id: str, phase: Phase, number: int, address: str) -> Worker:
    """A worker as the plan's view lists it; `number` tells its process from others."""
    capabilities = Capabilities(
        phases=(phase,),
        flippable=True,
        tp=1,
        pp=1,
        kv_dtype="bfloat16",
        page_size_tokens=16,
        context_tokens=0,
    )
    return Worker(
        group_id=group_id,
        node_id="n0",
        gpus=(Gpu(f"n0/{number}", "CPU"),),
        instance_id=f"instance-{number}",
        address=address,
        kvlink_address=f"kvlink-of-{group_id}:1",
        model="demo",
        capabilities=capabilities,
    )


def plan_of(*routes: tuple[str, str, float], epoch: int = 1) -> Plan:
    """A plan with these routes; a route from a group to itself is colocated."""
    phases: dict[str, Phase] = {}
    for prefill, decode, _ in routes:
        colocated = prefill == decode
        phases[prefill] = Phase.COLOCATED if colocated else Phase.PREFILL
        phases[decode] = Phase.COLOCATED if colocated else Phase.DECODE
    groups = tuple(
        Group(i, phase, 1, 1, (Stage(8, (Gpu(f"n0/{n}", "CPU"),)),))
        for n, (i, phase) in enumerate(phases.items())
    )
    return Plan(epoch, "test", 0, "demo", groups, tuple(Route(*route) for route in routes))


@dataclass
class Behaviour:
    """How a fake worker misbehaves; by default it does not."""

    prefill_error: ThunderServeError | None = None
    decode_error: ThunderServeError | None = None
    # The decode leg fails with `decode_error` after this many tokens.
    decode_tokens_before_error: int = 0
    # The decode leg ends, without an error and without a finish reason, after this many tokens.
    decode_ends_after: int | None = None
    # The decode leg gives every token and then ends without a finish reason.
    loses_end: bool = False
    # The decode leg repeats another first token.
    disagrees: bool = False
    # Legs wait for these before their first token.
    prefill_gate: asyncio.Event | None = None
    decode_gate: asyncio.Event | None = None
    # The decode leg waits for this after every token.
    token_gate: asyncio.Semaphore | None = None
    # Answers this instead of `next_token`, then finishes.
    script: list[int] | None = None
    # The prefill leg waits for this before it reports its transfer.
    report_gate: asyncio.Event | None = None


@dataclass
class Room:
    """Where a prefill leg meets its decode leg."""

    filled: asyncio.Event = field(default_factory=asyncio.Event)


class FakeWorker(PrefillServiceServicer, DecodeServiceServicer):
    """One worker; `legs` holds what it was asked, `running` how many legs run now."""

    def __init__(self, worker: Worker, rooms: dict[int, Room], behaviour: Behaviour) -> None:
        self.worker = worker
        self.behaviour = behaviour
        self.prefill_legs: list[worker_pb2.PrefillRequest] = []
        self.decode_legs: list[worker_pb2.DecodeRequest] = []
        self.running = 0
        self.cancelled = 0
        self.server: grpc.aio.Server | None = None
        self._rooms = rooms

    async def kill(self) -> None:
        """Gone at once, as after SIGKILL."""
        assert self.server is not None
        await self.server.stop(None)

    async def Prefill(
        self, request: worker_pb2.PrefillRequest, _context: object
    ) -> AsyncIterator[worker_pb2.PrefillResponse]:
        self.prefill_legs.append(request)
        with self._counted():
            if self.behaviour.prefill_gate is not None:
                await self.behaviour.prefill_gate.wait()
            if self.behaviour.prefill_error is not None:
                raise self.behaviour.prefill_error
            yield worker_pb2.PrefillResponse(
                first_token_id=self._token(request.prompt_token_ids, 0)
            )
            self._room(request.transfer.room).filled.set()
            if self.behaviour.report_gate is not None:
                await self.behaviour.report_gate.wait()
            report = types_pb2.TransferReport(
                raw_bytes=RAW_BYTES, wire_bytes=WIRE_BYTES, seconds=0.01
            )
            yield worker_pb2.PrefillResponse(transfer=report)

    async def Decode(
        self, request: worker_pb2.DecodeRequest, _context: object
    ) -> AsyncIterator[worker_pb2.DecodeResponse]:
        self.decode_legs.append(request)
        with self._counted():
            if self.behaviour.decode_gate is not None:
                await self.behaviour.decode_gate.wait()
            if self.behaviour.decode_error and not self.behaviour.decode_tokens_before_error:
                raise self.behaviour.decode_error
            if request.HasField("transfer"):
                await self._room(request.transfer.room).filled.wait()
            async for response in self._answer(request):
                yield response

    async def _answer(
        self, request: worker_pb2.DecodeRequest
    ) -> AsyncIterator[worker_pb2.DecodeResponse]:
        behaviour, tokens = self.behaviour, list(request.prompt_token_ids)
        script = behaviour.script
        count = request.sampling.max_tokens if script is None else len(script)
        for i in range(count):
            if behaviour.decode_error and i == behaviour.decode_tokens_before_error:
                raise behaviour.decode_error
            if i == behaviour.decode_ends_after:
                return
            token = self._token(tokens, i) + (1 if behaviour.disagrees and i == 0 else 0)
            tokens.append(token)
            last = i == count - 1
            length, stop = types_pb2.FINISH_REASON_LENGTH, types_pb2.FINISH_REASON_STOP
            reason = (stop if script else length) if last and not behaviour.loses_end else None
            yield worker_pb2.DecodeResponse(token_ids=[token], finish_reason=reason)
            if behaviour.token_gate is not None:
                await behaviour.token_gate.acquire()

    def _token(self, prefix: Sequence[int], index: int) -> int:
        script = self.behaviour.script
        return next_token(prefix) if script is None else script[index]

    def _room(self, room: int) -> Room:
        return self._rooms.setdefault(room, Room())

    def _counted(self) -> _Counted:
        return _Counted(self)


class _Counted:
    """Counts a leg as running, and as cancelled when it ends that way."""

    def __init__(self, worker: FakeWorker) -> None:
        self._worker = worker

    def __enter__(self) -> None:
        self._worker.running += 1

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        self._worker.running -= 1
        if kind is not None and issubclass(kind, asyncio.CancelledError | GeneratorExit):
            self._worker.cancelled += 1


class FakeFleet:
    """Fake workers on Unix sockets in `folder`, and plans over them."""

    def __init__(self, folder: Path) -> None:
        self.workers: dict[str, FakeWorker] = {}
        self._folder = folder
        self._rooms: dict[int, Room] = {}
        self._all: list[FakeWorker] = []

    async def add(
        self, group_id: str, phase: Phase, behaviour: Behaviour | None = None
    ) -> FakeWorker:
        """Start a worker, or start it anew under its old name."""
        number = len(self._all) + 1
        address = f"unix:{self._folder}/{group_id}-{number}"
        worker = fake_worker_noun(group_id, phase, number, address)
        fake = FakeWorker(worker, self._rooms, behaviour or Behaviour())
        fake.server = await serve_rpc(
            worker.address,
            lambda s: add_PrefillServiceServicer_to_server(fake, s),
            lambda s: add_DecodeServiceServicer_to_server(fake, s),
        )
        self.workers[group_id] = fake
        self._all.append(fake)
        return fake

    @property
    def live(self) -> tuple[Worker, ...]:
        """The workers as a plan's view lists them."""
        return tuple(fake.worker for fake in self.workers.values())

    async def close(self) -> None:
        """Stop all workers, also those replaced or removed."""
        for fake in self._all:
            await fake.kill()
