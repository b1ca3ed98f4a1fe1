"""The OpenAI API, over real sockets."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from fake_workers import RAW_BYTES, WIRE_BYTES, Behaviour, answer_tokens
from openai_calls import CHAT, COMPLETION, events

from thunderserve.api.types.v1 import types_pb2

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    import httpx
    import openai
    from conftest import RouterUnderTest

    Until = Callable[..., Awaitable[None]]


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
