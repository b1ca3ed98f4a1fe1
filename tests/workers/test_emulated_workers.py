"""Worker processes with the emulated engine: legs, switches and ends over gRPC."""

from __future__ import annotations

import asyncio
import signal
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration

from thunderserve.api.types.v1 import types_pb2
from thunderserve.api.worker.v1 import worker_pb2
from thunderserve.core.errors import (
    ConflictError,
    EngineFailedError,
    InvalidArgumentError,
    PreconditionError,
    UnavailableError,
)
from thunderserve.core.kv import KvLayout
from thunderserve.core.plan import Phase
from thunderserve.core.request import FinishReason, TransferReport, WireMode
from thunderserve.engine.emulated import EmulatedEngine, PlainTimes
from thunderserve.engine.model import ModelShape
from thunderserve.kvlink.engine_port import EnginePort
from thunderserve.runtime.errors import error_from_rpc

if TYPE_CHECKING:
    from pathlib import Path

PROMPT = tuple(range(100, 140))
START_TIMEOUT_S = 20


def switch_request(phase: types_pb2.Phase, epoch: int, drain_ms: int) -> Any:
    return worker_pb2.SwitchPhaseRequest(
        phase=phase, plan_epoch=epoch, drain_timeout=Duration(nanos=drain_ms * 1_000_000)
    )


async def test_worker_streams_answer_when_colocated(
    launch: Any, connect: Any, requests: Any
) -> None:
    """One chunk a token, the reason in the last alone; then SIGTERM ends it in order."""
    worker = launch.emulated(phase="COLOCATED")
    await worker.wait_serving(START_TIMEOUT_S)
    client = connect(worker)
    chunks = [chunk async for chunk in client.chunks(requests.decode(PROMPT))]
    assert [chunk.finish_reason for chunk in chunks] == [None] * 7 + [FinishReason.LENGTH]
    assert len({chunk.token_ids for chunk in chunks}) > 1
    status = await client.status()
    assert (status.phase, status.weight_load_count) == (types_pb2.PHASE_COLOCATED, 1)
    assert status.process_id == worker.process.pid
    assert worker.stop() == 0


async def test_worker_refuses_leg_of_other_phase_and_bad_prompt(
    launch: Any, connect: Any, requests: Any
) -> None:
    worker = launch.emulated(phase="COLOCATED")
    await worker.wait_serving(START_TIMEOUT_S)
    client = connect(worker)
    ticket = requests.ticket(1, "127.0.0.1:1")
    with pytest.raises(PreconditionError, match="in phase COLOCATED; the request needs DECODE"):
        await client.tokens(requests.decode(PROMPT, ticket=ticket))
    with pytest.raises(InvalidArgumentError, match="has 2100 tokens; it and its answer may have"):
        await client.tokens(requests.decode((5,) * 2100))
    with pytest.raises(PreconditionError, match="cannot change from COLOCATED to DECODE"):
        await switch(client, types_pb2.PHASE_DECODE, epoch=1, drain_ms=100)


async def test_worker_frees_leg_when_call_is_cancelled(
    launch: Any, connect: Any, requests: Any
) -> None:
    worker = launch.emulated(phase="COLOCATED", emulated_decode_s_per_step="30")
    await worker.wait_serving(START_TIMEOUT_S)
    client = connect(worker)
    await client.cancel_after_first(requests.decode(PROMPT))
    assert await client.until(lambda status: status.in_flight_count == 0) < 1


@pytest.mark.parametrize("mode", [WireMode.RAW16, WireMode.INT4])
async def test_pair_answers_as_colocated_when_cache_goes_through_sidecars(
    launch: Any, connect: Any, requests: Any, mode: WireMode
) -> None:
    """The decode engine has checked every value; then both flip, and serve the other way round."""
    _, near = launch.sidecar()
    _, far = launch.sidecar()
    colocated = launch.emulated(phase="COLOCATED")
    prefill, decode = launch.emulated("prefill", **near), launch.emulated("decode", **far)
    for process in launch.started:
        await process.wait_serving(START_TIMEOUT_S)
    first, second = connect(prefill), connect(decode)
    expected = await connect(colocated).tokens(requests.decode(PROMPT))

    async def pair(room: int, prefilling: Any, decoding: Any, address: str) -> None:
        ticket = requests.ticket(room, address, mode)
        tokens = asyncio.create_task(decoding.tokens(requests.decode(PROMPT, ticket=ticket)))
        legs = prefilling.legs.prefill(requests.prefill(PROMPT, ticket), 30)
        events = [event async for event in legs]
        assert await tokens == expected
        report = events[1]
        assert events[0] == expected[0]
        assert isinstance(report, TransferReport)
        assert report.wire_mode is mode
        assert report.raw_bytes == 3 * 16 * 8 * 2 * 2 * 64 * 2

    await pair(1, first, second, near["kvlink_advertised_address"])
    for client, phase in ((first, types_pb2.PHASE_DECODE), (second, types_pb2.PHASE_PREFILL)):
        response = await switch(client, phase, epoch=2, drain_ms=1000)
        assert (response.status.phase, response.status.weight_load_count) == (phase, 1)
        assert response.switch_s >= 0.1
    await pair(2, second, first, far["kvlink_advertised_address"])


async def test_switch_tells_why_it_is_refused(launch: Any, connect: Any, requests: Any) -> None:
    """A stale epoch is a conflict; a request that outlives the drain is told to go elsewhere."""
    _, near = launch.sidecar()
    worker = launch.emulated("prefill", phase="COLOCATED", emulated_decode_s_per_step="30", **near)
    for process in launch.started:
        await process.wait_serving(START_TIMEOUT_S)
    client = connect(worker)
    chunks = client.chunks(requests.decode(PROMPT))
    await anext(chunks)
    await switch(client, types_pb2.PHASE_COLOCATED, epoch=5, drain_ms=50)
    with pytest.raises(ConflictError, match="epoch 4 is stale: this worker has seen 5"):
        await switch(client, types_pb2.PHASE_DECODE, epoch=4, drain_ms=50)
    assert (await client.status()).phase == types_pb2.PHASE_COLOCATED
    response = await switch(client, types_pb2.PHASE_DECODE, epoch=5, drain_ms=50)
    assert response.drain_s < 1
    with pytest.raises(UnavailableError, match="go on with another one"):
        await anext(chunks)


async def test_engine_does_not_come_up_when_sidecar_is_away(tmp_path: Path) -> None:
    """The message names the socket."""
    shape = ModelShape(2, 2, 64, 1000, 64, "bfloat16")
    layout = KvLayout("m", 2, 2, 64, 16, "bfloat16")
    times = PlainTimes(prefill_s_per_token=0.0, decode_s_per_step=0.0)
    port = EnginePort(tmp_path / "engine", connect_timeout_s=0.1)
    engine = EmulatedEngine(shape, layout, times, port)
    with pytest.raises(EngineFailedError, match=f"no kvlink sidecar at {tmp_path}/engine"):
        await engine.start(Phase.PREFILL)
    await engine.stop()


async def test_worker_stops_at_once_while_its_engine_starts(launch: Any) -> None:
    worker = launch.emulated(phase="COLOCATED", emulated_start_s="60")
    while "starts its engine" not in worker.log.read_text():  # noqa: ASYNC110 - another process
        await asyncio.sleep(0.01)
    assert worker.stop(signal.SIGINT, timeout_s=5) == 0


async def switch(client: Any, phase: types_pb2.Phase, *, epoch: int, drain_ms: int) -> Any:
    try:
        return await client.stub.SwitchPhase(switch_request(phase, epoch, drain_ms), timeout=20)
    except grpc.aio.AioRpcError as error:
        raise error_from_rpc(error) from None
