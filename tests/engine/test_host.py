"""The host's states: legs only in their phase, switches that drain, failures that are told."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

import pytest
from fleet_fakes import make_link

from thunderserve.core.errors import (
    ConflictError,
    EngineBusyError,
    EngineFailedError,
    PreconditionError,
    UnavailableError,
)
from thunderserve.core.plan import Phase
from thunderserve.core.request import TransferReport, WireMode
from thunderserve.engine.host import EngineHost
from thunderserve.engine.states import HostState

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable


@pytest.fixture
async def host(engine: Any, kvlink: Any) -> AsyncIterator[EngineHost]:
    host = EngineHost(engine, kvlink)
    await host.start(Phase.DECODE)
    yield host
    await host.stop()


async def test_host_streams_first_token_then_report_when_prefilling(
    engine: Any, kvlink: Any, legs: Any
) -> None:
    """The room is announced before the engine sees the request."""
    host = EngineHost(engine, kvlink)
    await host.start(Phase.PREFILL)
    events = [event async for event in host.prefill(legs.prefill(room=5))]
    assert events[0] == 7
    assert isinstance(events[1], TransferReport)
    assert kvlink.announced == [(5, WireMode.RAW16)]
    await host.stop()


async def test_host_heartbeat_carries_links_when_the_sidecar_measured_some(
    engine: Any, kvlink: Any
) -> None:
    """Control hears of links from the worker beside the sidecar."""
    link = make_link("h:1", 1e8)
    kvlink.measured = (link,)
    host = EngineHost(engine, kvlink)
    await host.start(Phase.PREFILL)
    await _until(lambda: host.heartbeat.links == (link,))
    await host.stop()


async def test_host_refuses_prefill_when_it_has_no_sidecar(engine: Any, legs: Any) -> None:
    host = EngineHost(engine)
    await host.start(Phase.PREFILL)
    with pytest.raises(PreconditionError, match="no kvlink sidecar"):
        await anext(host.prefill(legs.prefill()))
    await host.stop()


async def test_host_refuses_leg_when_phase_differs(host: EngineHost, legs: Any) -> None:
    """The message names the state, the phase and what the request needs."""
    with pytest.raises(PreconditionError, match="SERVING in phase DECODE; the request needs PREF"):
        await anext(host.prefill(legs.prefill()))
    with pytest.raises(PreconditionError, match="needs COLOCATED"):
        await anext(host.decode(legs.decode(room=None)))
    assert host.in_flight == 0


async def test_host_frees_leg_when_reader_leaves(host: EngineHost, engine: Any, legs: Any) -> None:
    async with aclosing(host.decode(legs.decode())) as chunks:
        await anext(chunks)
        assert host.in_flight == 1
    assert (host.in_flight, engine.closed_legs) == (0, 1)


async def test_host_frees_leg_when_reader_is_cancelled(
    host: EngineHost, engine: Any, legs: Any
) -> None:
    reader = asyncio.create_task(_read(host, legs))
    await _until(lambda: host.in_flight == 1)
    reader.cancel()
    await asyncio.gather(reader, return_exceptions=True)
    assert (host.in_flight, engine.closed_legs) == (0, 1)


async def test_switch_waits_for_leg_when_one_is_in_flight(
    host: EngineHost, engine: Any, legs: Any
) -> None:
    """Nothing new is taken meanwhile, and the leg in flight ends in full."""
    reader = asyncio.create_task(_read(host, legs))
    await _until(lambda: host.in_flight == 1)
    switch = asyncio.create_task(host.switch(Phase.PREFILL, drain_timeout_s=5, plan_epoch=3))
    await _until(lambda: host.state is HostState.SWITCHING)
    with pytest.raises(PreconditionError, match="SWITCHING"):
        await anext(host.decode(legs.decode()))
    assert engine.switched == []
    engine.finish.set()
    assert await reader == [7, 8]
    report = await switch
    assert engine.switched == [Phase.PREFILL]
    assert (host.phase, host.state, host.plan_epoch) == (Phase.PREFILL, HostState.SERVING, 3)
    assert report.drain_s > 0


async def test_switch_sends_legs_away_when_they_outlive_the_drain_timeout(
    host: EngineHost, engine: Any, legs: Any
) -> None:
    """They end with an error that routers retry elsewhere; the engine has let go of them."""
    reader = asyncio.create_task(_read(host, legs))
    await _until(lambda: host.in_flight == 1)
    await host.switch(Phase.PREFILL, drain_timeout_s=0.01, plan_epoch=1)
    with pytest.raises(UnavailableError, match="changes its phase to PREFILL"):
        await reader
    assert not reader.cancelled()
    assert (host.phase, host.in_flight, engine.closed_legs) == (Phase.PREFILL, 0, 1)


async def test_switch_sends_a_leg_away_when_its_reader_is_slow(
    host: EngineHost, engine: Any, legs: Any
) -> None:
    """The reader is left alone until it asks for the next token."""
    chunks = host.decode(legs.decode())
    await anext(chunks)
    switch = asyncio.create_task(host.switch(Phase.PREFILL, drain_timeout_s=0.01, plan_epoch=1))
    await asyncio.sleep(0.05)
    with pytest.raises(UnavailableError, match="go on with another one"):
        await anext(chunks)
    await switch
    assert engine.closed_legs == 1


async def test_switch_sends_a_prefill_away_when_its_cache_is_not_taken(
    engine: Any, kvlink: Any, legs: Any
) -> None:
    """The first token is out, and the decode side never answers."""
    kvlink.stuck = True
    host = EngineHost(engine, kvlink)
    await host.start(Phase.PREFILL)
    events = host.prefill(legs.prefill())
    assert await anext(events) == 7
    waiting = asyncio.ensure_future(anext(events))
    await host.switch(Phase.DECODE, drain_timeout_s=0.01, plan_epoch=1)
    with pytest.raises(UnavailableError):
        await waiting
    await host.stop()


async def test_switch_retries_when_engine_is_busy(host: EngineHost, engine: Any) -> None:
    engine.switch_errors = [EngineBusyError("not idle"), EngineBusyError("not idle")]
    await host.switch(Phase.PREFILL, drain_timeout_s=5, plan_epoch=1)
    assert engine.switched == [Phase.PREFILL]


async def test_switch_gives_up_when_engine_stays_busy(engine: Any) -> None:
    engine.switch_errors = [EngineBusyError("not idle")] * 50
    host = EngineHost(engine, let_go_s=0.12)
    await host.start(Phase.DECODE)
    with pytest.raises(EngineBusyError):
        await host.switch(Phase.PREFILL, drain_timeout_s=5, plan_epoch=1)
    assert 45 < len(engine.switch_errors) < 50
    assert (host.phase, host.state) == (Phase.DECODE, HostState.SERVING)


async def test_switch_is_refused_when_epoch_is_stale(host: EngineHost) -> None:
    host.observe_epoch(9)
    with pytest.raises(ConflictError, match="epoch 8 is stale: this worker has seen 9"):
        await host.switch(Phase.PREFILL, drain_timeout_s=1, plan_epoch=8)
    assert host.phase is Phase.DECODE


async def test_switch_does_nothing_when_phase_is_current(host: EngineHost, engine: Any) -> None:
    """A control plane that resumes a flip may ask twice."""
    report = await host.switch(Phase.DECODE, drain_timeout_s=1, plan_epoch=1)
    assert (report.drain_s, report.switch_s, engine.switched) == (0, 0, [])


async def test_switch_is_refused_when_engine_cannot(host: EngineHost, engine: Any) -> None:
    engine.flippable = False
    with pytest.raises(PreconditionError, match="cannot change from DECODE to PREFILL"):
        await host.switch(Phase.PREFILL, drain_timeout_s=1, plan_epoch=1)


async def test_switch_ends_when_caller_goes_away(host: EngineHost, engine: Any, legs: Any) -> None:
    """A lost control plane leaves no half-changed worker."""
    reader = asyncio.create_task(_read(host, legs))
    await _until(lambda: host.in_flight == 1)
    switch = asyncio.create_task(host.switch(Phase.PREFILL, drain_timeout_s=5, plan_epoch=1))
    await _until(lambda: host.state is HostState.SWITCHING)
    switch.cancel()
    engine.finish.set()
    await reader
    await _until(lambda: host.phase is Phase.PREFILL)


async def test_host_fails_when_switch_loses_engine(host: EngineHost, engine: Any) -> None:
    engine.switch_errors = [EngineFailedError("rebuild failed")]
    with pytest.raises(EngineFailedError, match="rebuild failed"):
        await host.switch(Phase.PREFILL, drain_timeout_s=1, plan_epoch=1)
    assert host.state is HostState.FAILED
    assert str(await host.wait_failed()) == "rebuild failed"


async def test_host_fails_when_engine_is_lost(host: EngineHost, engine: Any, legs: Any) -> None:
    engine.lost.set()
    assert str(await host.wait_failed()) == "the scheduler ended"
    with pytest.raises(PreconditionError, match="FAILED"):
        await anext(host.decode(legs.decode()))


async def test_host_tells_listeners_when_epoch_or_phase_change(host: EngineHost) -> None:
    """A heartbeat goes out at once for each."""
    seen: list[tuple[HostState, Phase, int]] = []
    host.on_change(lambda: seen.append((host.state, host.phase, host.heartbeat.plan_epoch)))
    host.observe_epoch(2)
    host.observe_epoch(1)
    await host.switch(Phase.PREFILL, drain_timeout_s=1, plan_epoch=2)
    assert seen == [
        (HostState.SERVING, Phase.DECODE, 2),
        (HostState.SWITCHING, Phase.DECODE, 2),
        (HostState.SERVING, Phase.PREFILL, 2),
    ]


async def _read(host: EngineHost, legs: Any) -> list[int]:
    async with aclosing(host.decode(legs.decode())) as chunks:
        return [token async for chunk in chunks for token in chunk.token_ids]


async def _until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110 - the host has no event for a test
            await asyncio.sleep(0.001)
