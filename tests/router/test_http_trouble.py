"""Load, losses and leaving clients, as HTTP shows them."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING

import httpx
import openai
import pytest
from fake_workers import Behaviour, plan_of
from openai_calls import CHAT, COMPLETION

from thunderserve.core.errors import UnavailableError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from conftest import RouterUnderTest

    Until = Callable[..., Awaitable[None]]


async def test_router_is_alive_but_not_ready_when_it_has_no_plan(
    http_router: RouterUnderTest,  # noqa: ARG001 - the router that answers
    http: httpx.AsyncClient,
) -> None:
    """It says so everywhere, at once, and when to try again."""
    chat = await http.post("/v1/chat/completions", json=CHAT)
    ready = await http.get("/ready")

    assert (await http.get("/health")).status_code == 200
    assert (await http.get("/v1/models")).json()["data"] == []
    assert (await http.get("/v1/models/demo")).status_code == 503
    for response in (chat, ready):
        assert response.status_code == 503
        assert response.headers["retry-after"] == "1"
        assert response.json()["error"]["code"] == "service_unavailable"


async def test_router_is_not_ready_when_all_decode_workers_are_gone(
    served: RouterUnderTest, http: httpx.AsyncClient
) -> None:
    """A plan whose routes have no live workers is none."""
    assert (await http.get("/ready")).status_code == 200

    del served.fleet.workers["d0"], served.fleet.workers["d1"]
    served.follow(plan_of(("p0", "d0", 0.5), ("p0", "d1", 0.5), epoch=2))

    assert (await http.get("/ready")).status_code == 503


async def test_overload_is_refused_at_once(
    http_router: RouterUnderTest, http: httpx.AsyncClient, until: Until
) -> None:
    """The request that is one too many gets 429 with Retry-After; the others go on."""
    gate = asyncio.Event()
    await http_router.serve_pairs(prefill={"p0": Behaviour(prefill_gate=gate)}, decode={"d0": None})
    running = [asyncio.create_task(http.post("/v1/completions", json=COMPLETION)) for _ in range(8)]
    await until(lambda: http_router.admission.in_flight == 8)

    refused = await http.post("/v1/completions", json=COMPLETION)
    gate.set()

    assert refused.status_code == 429
    assert refused.headers["retry-after"] == "1"
    assert refused.json()["error"]["type"] == "rate_limit_error"
    assert {(await answer).status_code for answer in running} == {200}
    assert http_router.admission.in_flight == 0


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("began", [False, True])
async def test_disconnect_frees_everything(
    http_router: RouterUnderTest,
    until: Until,
    stream: bool,  # noqa: FBT001 - a case
    began: bool,  # noqa: FBT001 - a case
) -> None:
    """Legs and the place in flight, whether or not a token was shown, within a second."""
    behaviour = Behaviour(
        prefill_gate=None if began else asyncio.Event(), token_gate=asyncio.Semaphore(0)
    )
    await http_router.serve_pairs(prefill={"p0": behaviour}, decode={"d0": behaviour})
    workers = http_router.fleet.workers.values()
    async with httpx.AsyncClient(base_url=http_router.url) as client:
        post = client.post("/v1/completions", json=COMPLETION | {"stream": stream})
        asking = asyncio.create_task(post)
        await until(lambda: sum(len(w.decode_legs) for w in workers) == 1)
        await until(lambda: not began or not http_router.fleet.workers["p0"].running)
        asking.cancel()

    await until(lambda: not any(w.running for w in workers), 1.0)
    await until(lambda: http_router.admission.in_flight == 0, 1.0)
    assert http_router.window.requests()[0].outcome == "cancelled"


async def test_stream_ends_with_an_error_event_when_it_fails_in_the_middle(
    http_router: RouterUnderTest, http: httpx.AsyncClient, sdk: openai.AsyncOpenAI
) -> None:
    """Never a silent truncation: an error, no [DONE], and the official client raises."""
    dies = Behaviour(decode_error=UnavailableError("died"), decode_tokens_before_error=3)
    await http_router.serve_pairs(prefill={"p0": None}, decode={"d0": dies})

    response = await http.post("/v1/completions", json=COMPLETION | {"stream": True})

    *pieces, last = [e.removeprefix("data: ") for e in response.text.split("\n\n") if e]
    assert response.status_code == 200
    assert len(pieces) == 3
    assert "died" in json.loads(last)["error"]["message"]
    stream = await sdk.completions.create(**COMPLETION, stream=True)
    with pytest.raises(openai.APIError, match="died"):
        _ = [chunk async for chunk in stream]
    assert http_router.window.requests()[0].outcome == "failed"


async def test_failure_before_the_first_token_is_a_status_when_streaming(
    http_router: RouterUnderTest, http: httpx.AsyncClient
) -> None:
    """The status line waits for the first token."""
    fails = Behaviour(prefill_error=UnavailableError("no"))
    await http_router.serve_pairs(prefill={"p0": fails}, decode={"d0": None})

    response = await http.post("/v1/completions", json=COMPLETION | {"stream": True})

    assert response.status_code == 503
    assert response.headers["content-type"] == "application/json"


async def test_unexpected_error_is_a_500_without_a_traceback(
    served: RouterUnderTest,
    http: httpx.AsyncClient,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The client learns nothing of our inside; the log has it all."""
    monkeypatch.setattr(served.dispatcher, "start", lambda _job: 1 / 0)

    response = await http.post("/v1/completions", json=COMPLETION)

    assert response.status_code == 500
    assert "ZeroDivision" not in response.text
    assert response.json()["error"]["code"] == "internal_error"
    assert "ZeroDivisionError" in caplog.text
