"""The OpenAI API, over real sockets."""

from __future__ import annotations

import asyncio
import json
import time
from typing import TYPE_CHECKING

import httpx
import openai
import pytest
from fake_workers import RAW_BYTES, WIRE_BYTES, Behaviour, answer_tokens, plan_of

from thunderserve.api.types.v1 import types_pb2
from thunderserve.core.errors import UnavailableError
from thunderserve.router.http import build_app

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from conftest import RouterUnderTest

    Until = Callable[..., Awaitable[None]]

MAX_BODY_BYTES = 100_000
CHAT = {
    "model": "demo",
    "messages": [{"role": "user", "content": "Write a function."}],
    "max_tokens": 8,
    "temperature": 0,
}
PROMPT = [10, 11, 12]
COMPLETION = {"model": "demo", "prompt": PROMPT, "max_tokens": 8, "temperature": 0}


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


def events(text: str) -> list[dict]:
    """The JSON of every event; the stream must end with [DONE]."""
    lines = [line.removeprefix("data: ") for line in text.split("\n\n") if line]
    assert lines.pop() == "[DONE]"
    return [json.loads(line) for line in lines]


async def test_chat_answers_when_whole(served: RouterUnderTest, http: httpx.AsyncClient) -> None:
    """A chat completion has its text, usage, finish reason and figures."""
    response = await http.post("/v1/chat/completions", json=CHAT)

    body = response.json()
    prompt = await served.tokenizer.encode("<|user|>\nWrite a function.<|end|>\n<|assistant|>\n")
    expected = served.tokenizer.tokenizer.decode(answer_tokens(prompt, 8))
    assert response.status_code == 200
    assert body["choices"][0]["message"] == {"role": "assistant", "content": expected}
    assert body["choices"][0]["finish_reason"] == "length"
    assert body["usage"]["prompt_tokens"] == len(prompt)
    assert body["usage"]["completion_tokens"] == 8
    assert body["thunderserve"]["kv_raw_bytes"] == RAW_BYTES
    assert body["thunderserve"]["kv_wire_bytes"] == WIRE_BYTES


async def test_completion_streams_the_same_text_when_streamed(
    served: RouterUnderTest, http: httpx.AsyncClient
) -> None:
    """The pieces of a stream add up to the whole answer."""
    whole = (await http.post("/v1/completions", json=COMPLETION)).json()

    response = await http.post("/v1/completions", json=COMPLETION | {"stream": True})

    pieces = events(response.text)
    assert "".join(p["choices"][0]["text"] for p in pieces) == whole["choices"][0]["text"]
    assert pieces[-1]["choices"][0]["finish_reason"] == "length"
    assert pieces[-1]["thunderserve"]["decode_group"] in {"d0", "d1"}
    assert served.admission.in_flight == 0


async def test_openai_client_streams_a_chat(
    served: RouterUnderTest, sdk: openai.AsyncOpenAI
) -> None:
    """The official client understands every chunk, and gets the usage it asked for."""
    stream = await sdk.chat.completions.create(
        **CHAT, stream=True, stream_options={"include_usage": True}
    )
    chunks = [chunk async for chunk in stream]

    whole = await sdk.chat.completions.create(**CHAT)
    text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert text == whole.choices[0].message.content
    assert chunks[0].choices[0].delta.role == "assistant"
    assert chunks[-1].choices == []
    assert chunks[-1].usage is not None
    assert chunks[-1].usage == whole.usage
    assert served.window.requests()[0].outcome == "finished"


async def test_completion_takes_a_text_when_the_prompt_is_a_string(
    served: RouterUnderTest, http: httpx.AsyncClient
) -> None:
    """A text and its tokens are the same prompt."""
    tokens = list(await served.tokenizer.encode("import os"))

    text = await http.post("/v1/completions", json=COMPLETION | {"prompt": "import os"})
    same = await http.post("/v1/completions", json=COMPLETION | {"prompt": [tokens]})

    assert text.json()["choices"] == same.json()["choices"]
    assert text.json()["usage"]["prompt_tokens"] == len(tokens)


async def test_openai_client_gets_models_and_completions(
    served: RouterUnderTest,  # noqa: ARG001 - the router that answers
    sdk: openai.AsyncOpenAI,
) -> None:
    """The rest of the API that the official client uses."""
    models = await sdk.models.list()
    model = await sdk.models.retrieve("demo")
    completion = await sdk.completions.create(**COMPLETION)
    stream = await sdk.completions.create(**COMPLETION, stream=True)

    assert [m.id for m in models.data] == ["demo"]
    assert model.id == "demo"
    assert "".join([c.choices[0].text async for c in stream]) == completion.choices[0].text


async def test_extension_fields_reach_the_workers(
    served: RouterUnderTest, http: httpx.AsyncClient
) -> None:
    """What OpenAI's API has no name for."""
    extra = {"kv_wire_mode": "int4", "top_k": 5, "ignore_eos": True, "seed": 3, "user": "u"}

    response = await http.post("/v1/completions", json=COMPLETION | extra)

    assert response.status_code == 200, response.text
    (leg,) = served.fleet.workers["p0"].prefill_legs
    assert leg.transfer.wire_mode == types_pb2.WIRE_MODE_INT4
    assert (leg.sampling.top_k, leg.sampling.ignore_eos, leg.sampling.seed) == (5, True, 3)
    assert leg.sampling.temperature == 0


async def test_answer_ends_before_the_stop_string_when_one_is_given(
    http_router: RouterUnderTest, http: httpx.AsyncClient, until: Until
) -> None:
    """Also when it spans tokens; what is left of the answer is not computed."""
    script = list(await http_router.tokenizer.encode("one two STOP three"))
    behaviour = Behaviour(script=script)
    await http_router.serve_pairs(prefill={"p0": behaviour}, decode={"d0": behaviour})

    stopping = COMPLETION | {"stop": [" STOP"], "max_tokens": 50}
    whole = await http.post("/v1/completions", json=stopping)
    stream = await http.post("/v1/completions", json=stopping | {"stream": True})

    choice = whole.json()["choices"][0]
    assert (choice["text"], choice["finish_reason"]) == ("one two", "stop")
    pieces = [e["choices"][0] for e in events(stream.text)]
    assert "".join(p["text"] for p in pieces) == "one two"
    assert pieces[-1]["finish_reason"] == "stop"
    await until(lambda: not any(w.running for w in http_router.fleet.workers.values()))


BAD_CHATS = [
    ({"model": "gpt-9"}, 404, "model", "'gpt-9' is not served here; this router serves 'demo'"),
    ({"model": None}, 400, "model", "model is missing"),
    ({"max_tokens": -1}, 400, "max_tokens", "max_tokens is -1; it must be at least 1"),
    ({"max_tokens": 0}, 400, "max_tokens", "max_tokens is 0"),
    ({"max_tokens": 10**30}, 400, "max_tokens", "max_tokens is 1000"),
    ({"max_tokens": "8"}, 400, "max_tokens", 'max_tokens is "8"; it must be a whole number'),
    ({"max_tokens": True}, 400, "max_tokens", "max_tokens is true"),
    ({"max_tokens": 5000}, 400, "max_tokens", "max_tokens is 5000"),
    ({"max_completion_tokens": 9}, 400, "max_completion_tokens", "max_completion_tokens is 9"),
    ({"messages": []}, 400, "messages", "messages is []"),
    ({"messages": None}, 400, "messages", "messages is null"),
    ({"messages": ["hi"]}, 400, "messages[0]", 'messages[0] is "hi"'),
    ({"messages": [{"role": "tool", "content": "x"}]}, 400, "messages[0].role", '"tool"'),
    ({"messages": [{"role": "user"}]}, 400, "messages[0].content", "null"),
    (
        {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]},
        400,
        "messages[0].content[0].type",
        "image_url",
    ),
    (
        {"messages": [{"role": "user", "content": "\ud800"}]},
        400,
        "messages[0].content",
        "surrogate",
    ),
    ({"messages": [{"role": "user", "content": "x " * 5000}]}, 400, "prompt", "context is 2048"),
    ({"temperature": 3}, 400, "temperature", "temperature is 3"),
    ({"temperature": "hot"}, 400, "temperature", '"hot"'),
    ({"top_p": 0}, 400, "top_p", "top_p is 0"),
    ({"n": 2}, 400, "n", "n is 2"),
    ({"n": True}, 400, "n", "n is true"),
    ({"logprobs": True}, 400, "logprobs", "logprobs is true"),
    ({"tools": [{"type": "function"}]}, 400, "tools", "does not support it"),
    ({"response_format": {"type": "json_object"}}, 400, "response_format", "json_object"),
    ({"frequency_penalty": 0.5}, 400, "frequency_penalty", "0.5"),
    ({"presence_penalty": 1}, 400, "presence_penalty", "is 1"),
    ({"logit_bias": {"1": 2}}, 400, "logit_bias", "does not support it"),
    ({"temprature": 1}, 400, "temprature", "did you mean 'temperature'?"),
    ({"stop": [""]}, 400, "stop", "non-empty"),
    ({"stop": ["x"] * 10_000}, 400, "stop", "10000 strings"),
    ({"stop": 7}, 400, "stop", "stop is 7"),
    ({"stream": "yes"}, 400, "stream", "true or false"),
    ({"stream_options": {"include_usage": True}}, 400, "stream_options", "stream=true"),
    ({"seed": 2**64}, 400, "seed", "in ["),
    ({"top_k": -2}, 400, "top_k", "top_k is -2"),
    ({"kv_wire_mode": "zip"}, 400, "kv_wire_mode", '"zip"; it must be "raw16" or "int4"'),
]


@pytest.mark.parametrize("case", BAD_CHATS, ids=lambda case: str(case[0])[:40])
async def test_chat_is_refused_when_a_field_is_wrong(
    router: RouterUnderTest, asgi: httpx.AsyncClient, case: tuple[dict, int, str, str]
) -> None:
    """With the status, the parameter, the value and the way out; nothing reaches a worker."""
    change, status, param, words = case

    response = await asgi.post(
        "/v1/chat/completions",
        content=json.dumps(CHAT | change),
        headers={"content-type": "application/json"},
    )

    error = response.json()["error"]
    assert (response.status_code, error["param"]) == (status, param), error
    assert words in error["message"]
    assert error["type"] == "invalid_request_error"
    assert error["code"]
    assert not router.fleet.workers["p0"].prefill_legs
    assert router.admission.in_flight == 0


BAD_COMPLETIONS = [
    ({"prompt": ""}, "prompt", "non-empty"),
    ({"prompt": None}, "prompt", "null"),
    ({"prompt": []}, "prompt", "[]"),
    ({"prompt": ["a", "b"]}, "prompt", "2 prompts"),
    ({"prompt": [1, -1]}, "prompt", "-1"),
    ({"prompt": [1, 5000]}, "prompt", "5000 is not in [0, 4096)"),
    ({"prompt": [1, True]}, "prompt", "true"),
    ({"prompt": [5] * 2048}, "prompt", "2048"),
    ({"prompt": [5] * 2000, "max_tokens": 49}, "max_tokens", "together 2049"),
    ({"best_of": 2}, "best_of", "best_of is 2"),
    ({"echo": True}, "echo", "echo is true"),
    ({"suffix": "x"}, "suffix", '"x"'),
    ({"logprobs": 3}, "logprobs", "logprobs is 3"),
    ({"messages": []}, "messages", "unknown parameter"),
    ({"stop_token_ids": ["a"]}, "stop_token_ids", '"a"'),
]


@pytest.mark.parametrize(("change", "param", "words"), BAD_COMPLETIONS)
async def test_completion_is_refused_when_a_field_is_wrong(
    asgi: httpx.AsyncClient, change: dict, param: str, words: str
) -> None:
    """As for chats."""
    response = await asgi.post("/v1/completions", json=COMPLETION | change)

    error = response.json()["error"]
    assert (response.status_code, error["param"]) == (400, param), error
    assert words in error["message"]


async def test_context_error_has_its_own_code(
    served: RouterUnderTest,  # noqa: ARG001 - the router that answers
    sdk: openai.AsyncOpenAI,
) -> None:
    """Clients look for it by its code."""
    with pytest.raises(openai.BadRequestError) as caught:
        await sdk.completions.create(model="demo", prompt=[5] * 3000)

    assert caught.value.code == "context_length_exceeded"
    assert "3000" in str(caught.value)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"{", "not valid JSON"),
        (b"", "not valid JSON"),
        (b"[1]", "must be a JSON object"),
        (b'{"temperature": NaN}', "NaN is not a JSON number"),
        (b'{"x": "\xff"}', "not UTF-8"),
        (b"[" * 90_000, "nested too deeply"),
        (b'{"max_tokens": ' + b"9" * 5000 + b"}", "not valid JSON"),
    ],
)
async def test_body_is_refused_when_it_is_no_json_object(
    asgi: httpx.AsyncClient, body: bytes, words: str
) -> None:
    """Broken JSON of every kind is the client's error, said in OpenAI's way."""
    response = await asgi.post(
        "/v1/chat/completions", content=body, headers={"content-type": "application/json"}
    )

    assert response.status_code == 400
    assert words in response.json()["error"]["message"]
    assert response.json()["error"]["type"] == "invalid_request_error"


async def test_http_errors_have_openai_bodies(
    served: RouterUnderTest,  # noqa: ARG001 - the router that answers
    http: httpx.AsyncClient,
) -> None:
    """Wrong path, method, content type and length."""
    responses = {
        404: await http.get("/v2/nothing"),
        405: await http.get("/v1/chat/completions"),
        415: await http.post(
            "/v1/completions", content="x", headers={"content-type": "text/plain"}
        ),
        413: await http.post("/v1/completions", json={"prompt": "x" * 200_000}),
    }

    for status, response in responses.items():
        assert response.status_code == status
        assert set(response.json()["error"]) == {"message", "type", "param", "code"}
        assert response.headers["x-request-id"]
    assert (await http.get("/v1/models/gpt-9")).json()["error"]["code"] == "model_not_found"


async def test_request_id_is_the_clients_when_it_is_harmless(
    served: RouterUnderTest,  # noqa: ARG001 - the router that answers
    http: httpx.AsyncClient,
) -> None:
    """It comes back, and is in the answer's id; an odd one is replaced."""
    given = await http.post("/v1/completions", json=COMPLETION, headers={"x-request-id": "abc-1"})
    odd = await http.get("/health", headers={"x-request-id": "a b\tc"})

    assert given.headers["x-request-id"] == "abc-1"
    assert given.json()["id"] == "cmpl-abc-1"
    assert odd.headers["x-request-id"] not in {"", "a b\tc"}


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


async def test_every_token_is_sent_at_once_when_streaming(
    http_router: RouterUnderTest, http: httpx.AsyncClient
) -> None:
    """A token does not wait for the next one: the worker holds each until the last was seen."""
    steps = asyncio.Semaphore(0)
    await http_router.serve_pairs(prefill={"p0": None}, decode={"d0": Behaviour(token_gate=steps)})
    asked = COMPLETION | {"stream": True, "max_tokens": 20}
    seen = 0

    async with http.stream("POST", "/v1/completions", json=asked) as response:
        async for line in response.aiter_lines():
            if line.startswith("data: {"):
                seen += 1
                steps.release()

    assert seen >= 10
